//! Secrets, keys and tokens.

use super::super::facts::{Facts, FileFacts, SecretFacts, SigningFacts, TrustFacts};
use super::super::{Finding, Level};
use super::unknown;

/// The shortest secret that is worth its HMAC-SHA256, in bytes: as long as what it makes (RFC 2104, 3).
const SECRET_BYTES_MIN: usize = 32;

/// How a good secret is made.
const MAKE: &str = "openssl rand -hex 32";

/// What signs and verifies messages.
pub(super) fn signing(signing: &SigningFacts) -> Vec<Finding> {
    let mut findings = vec![secret(signing)];
    let accepted = signing.accepted.iter();
    findings.extend(accepted.map(|(variable, secret)| accept(variable, *secret)));
    findings
}

fn secret(signing: &SigningFacts) -> Finding {
    let variable = &signing.variable;
    if variable.is_empty() {
        return Finding::warning(
            "signing",
            "off (signing.secret_env is empty): every entry is believed",
            "name an environment variable in `signing.secret_env`, and set it on every host and peer",
        );
    }
    let make = format!(
        "export {variable}=\"$({MAKE})\" where the host is started, the same on every host and peer"
    );
    match signing.secret {
        SecretFacts::Unset if signing.accepted.is_empty() => Finding::warning(
            "signing",
            format!("off ({variable} is not set): every entry is believed"),
            make,
        ),
        SecretFacts::Unset => Finding::error(
            "signing",
            format!("{variable} is not set, and signing.also_accept_env needs one that signs"),
            make,
        ),
        SecretFacts::Set { bytes, padded, .. } => usable("signing", variable, bytes, padded),
        SecretFacts::Empty | SecretFacts::NotText => unusable("signing", variable, signing.secret),
    }
}

fn accept(variable: &str, secret: SecretFacts) -> Finding {
    const CHECK: &str = "also accepted";
    let drop_it = format!("take `{variable}` out of `signing.also_accept_env`");
    match secret {
        SecretFacts::Set { signs: true, .. } => Finding::note(
            CHECK,
            format!("{variable} holds the secret that signs: it adds nothing"),
            drop_it,
        ),
        SecretFacts::Set { bytes, padded, .. } => usable(CHECK, variable, bytes, padded),
        SecretFacts::Unset => Finding::error(
            CHECK,
            format!("{variable} is not set"),
            format!("set it where the host is started, or {drop_it}"),
        ),
        SecretFacts::Empty | SecretFacts::NotText => unusable(CHECK, variable, secret),
    }
}

fn unusable(check: &str, variable: &str, secret: SecretFacts) -> Finding {
    let what = match secret {
        SecretFacts::Empty => "is empty",
        _ => "is not valid UTF-8",
    };
    Finding::error(
        check,
        format!("{variable} {what}"),
        format!("unset {variable} to do without it, or make a secret: {MAKE}"),
    )
}

fn usable(check: &str, variable: &str, bytes: usize, padded: bool) -> Finding {
    if padded {
        return Finding::warning(
            check,
            format!("the secret in {variable} begins or ends with white space, which counts"),
            format!("set it without, unless peers have it so: export {variable}=\"$(cat FILE)\""),
        );
    }
    if bytes < SECRET_BYTES_MIN {
        return Finding::warning(
            check,
            format!("the secret in {variable} has {bytes} bytes, and may be guessed"),
            format!(
                "make one of {SECRET_BYTES_MIN} bytes or more ({MAKE}), and rotate: \
                 `signing.also_accept_env` takes the old one meanwhile"
            ),
        );
    }
    Finding::ok(
        check,
        format!("with the secret in {variable}, {bytes} bytes"),
    )
}

/// Whose signatures of policies count.
pub(super) fn trust(trust: Option<&TrustFacts>) -> Vec<Finding> {
    const CHECK: &str = "trusted keys";
    const BEGIN: &str =
        "oona policy keygen, oona policy sign, and name the public key in `policies.trusted_keys`";
    let Some(trust) = trust else {
        return vec![unknown(CHECK)];
    };
    match (trust.keys.is_empty(), trust.allow_unsigned) {
        (false, _) => {
            let usage = "name a file that `oona policy keygen` wrote, the public one (PEM), in \
                         `policies.trusted_keys`";
            let keys = trust.keys.iter();
            keys.map(|key| file(CHECK, key, usage)).collect()
        }
        (true, true) => vec![Finding::note(
            CHECK,
            "none: policies need no signature (policies.allow_unsigned)",
            BEGIN,
        )],
        (true, false) => vec![Finding::note(
            CHECK,
            "none, and policies.allow_unsigned is false: no component may be used",
            BEGIN,
        )],
    }
}

/// A file that says who may do something.
fn file(check: &str, file: &FileFacts, usage: &str) -> Finding {
    let path = file.path.display();
    if let Some(problem) = &file.problem {
        return Finding::error(check, problem.clone(), usage);
    }
    if file.writable_by_others {
        return Finding::warning(
            check,
            format!("others than its owner may write {path}, and so give themselves rights"),
            format!("chmod go-w {path}"),
        );
    }
    Finding::ok(check, path.to_string())
}

/// Who may administer.
pub(super) fn tokens(facts: &Facts) -> Finding {
    const CHECK: &str = "tokens";
    const MAKE_ONE: &str =
        "write a file of tokens, and name it in `access.tokens_file`: docs/policies.md";
    let remote = !facts.address.listen.ip().is_loopback();
    let tokens = match &facts.tokens {
        None => return unknown(CHECK),
        Some(None) if remote => {
            let found =
                "none, and other machines reach the port: whoever does may replace policies";
            return Finding::warning(CHECK, found, MAKE_ONE);
        }
        Some(None) => {
            let found = "none: everybody on this machine may administer";
            return Finding::note(CHECK, found, MAKE_ONE);
        }
        Some(Some(tokens)) => tokens,
    };
    let usage = "correct the file, or name another in `access.tokens_file`";
    let in_order = file(CHECK, &tokens.file, usage);
    if in_order.level > Level::Ok {
        return in_order;
    }
    let count = tokens.count;
    match (count, remote) {
        (0, _) => Finding::warning(
            CHECK,
            format!("{} holds none: nobody may administer", in_order.found),
            "add a [[token]] with name, sha256 and rights: docs/policies.md",
        ),
        (_, true) => Finding::note(
            CHECK,
            format!("{count} guard the administration, not publishing and subscribing"),
            "let only machines that may do that reach the port: a firewall, or `server.listen`",
        ),
        (_, false) => Finding::ok(CHECK, format!("{count} guard the administration")),
    }
}

//! Who may ask for data from a browser: this host's own page, and no page of another site.
//!
//! With a file of tokens, a token is what it takes: a page of another site has none, and a browser adds none
//! by itself. Without one, whoever reaches the port may do everything, and a browser on this machine
//! reaches it for any page that it shows. So then
//!
//! - the name by which the host is asked must be an address, `localhost` or one of `server.names`, or a page could
//!   have its own name lead here (DNS rebinding);
//! - what a browser says comes from another site is refused;
//! - an act must be JSON, and come from the origin that it goes to.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::access::Access;

/// See the module.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) access: Access,
    /// Names of this host, beside its addresses.
    pub(crate) names: Arc<[String]>,
}

/// Lets pass what may be asked; sees to it that no answer is kept or taken for something else.
pub(crate) async fn guard(State(site): State<Site>, request: Request, next: Next) -> Response {
    let asked = Asked::of(&request);
    let mut response = match check(&site, request.method(), request.headers(), asked.as_ref()) {
        Ok(()) => next.run(request).await,
        Err((status, why)) => (status, Json(json!({ "error": why }))).into_response(),
    };
    let headers = response.headers_mut();
    let fixed = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Lets pass what no browser sends, and what this host's own page does: for what needs no token and is no part of
/// the console.
pub(crate) async fn keep_pages_out(
    State(site): State<Site>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let is_of_a_page = headers.contains_key(header::ORIGIN) || headers.contains_key(FETCH_SITE);
    let acts = !request.method().is_safe();
    let asked = Asked::of(&request);
    match check_page(&site, acts, headers, asked.as_ref()) {
        Err((status, why)) if is_of_a_page => {
            (status, Json(json!({ "error": why }))).into_response()
        }
        _ => next.run(request).await,
    }
}

/// By which name the host was asked.
struct Asked(Authority);

impl Asked {
    fn of(request: &Request) -> Option<Self> {
        let named = request.headers().get(header::HOST);
        let named = named.and_then(|value| value.to_str().ok()?.parse().ok());
        named
            .or_else(|| request.uri().authority().cloned())
            .map(Self)
    }

    fn is_ours(&self, names: &[String]) -> bool {
        let host = self.0.host();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || names.iter().any(|name| host.eq_ignore_ascii_case(name))
    }

    fn is_origin(&self, origin: &str) -> bool {
        let origin = origin.parse::<Uri>().ok();
        let authority = origin.as_ref().and_then(Uri::authority);
        authority.is_some_and(|authority| *authority == self.0)
    }
}

type Refused = (StatusCode, String);

fn check(
    site: &Site,
    method: &Method,
    headers: &HeaderMap,
    asked: Option<&Asked>,
) -> Result<(), Refused> {
    let acts = !method.is_safe();
    let form = headers.get(header::CONTENT_TYPE);
    let form = form.and_then(|form| form.to_str().ok());
    if acts && !form.is_some_and(is_json) {
        let why = "the content type must be application/json".to_owned();
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    if site.access.count().is_some() {
        return Ok(());
    }
    check_page(site, acts, headers, asked)
}

/// What a page may do that needs no token.
fn check_page(
    site: &Site,
    acts: bool,
    headers: &HeaderMap,
    asked: Option<&Asked>,
) -> Result<(), Refused> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let forbidden = |why: &str| Err((StatusCode::FORBIDDEN, why.to_owned()));
    let Some(asked) = asked.filter(|asked| asked.is_ours(&site.names)) else {
        return forbidden(
            "this host is not known by that name: use its address, or add the name to server.names",
        );
    };
    if !matches!(text(FETCH_SITE), None | Some("same-origin" | "none")) {
        return forbidden("a page of another site may not look here");
    }
    if acts && !text(header::ORIGIN).is_some_and(|origin| asked.is_origin(origin)) {
        return forbidden("only a page of this host may act: `origin` must name it");
    }
    Ok(())
}

const FETCH_SITE: header::HeaderName = header::HeaderName::from_static("sec-fetch-site");

fn is_json(form: &str) -> bool {
    let essence = form.split(';').next().unwrap_or(form).trim();
    essence.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a request with these headers is answered with, if it is refused.
    fn refused(method: &Method, host: &str, headers: &[(&'static str, &str)]) -> Option<u16> {
        let site = Site {
            access: Access::default(),
            names: ["bus.example".to_owned()].into(),
        };
        let headers = headers.iter().map(|(name, value)| {
            (
                header::HeaderName::from_static(name),
                value.parse().unwrap(),
            )
        });
        let asked = host.parse().ok().map(Asked);
        let checked = check(&site, method, &headers.collect(), asked.as_ref());
        checked.err().map(|(status, _)| status.as_u16())
    }

    #[test]
    fn only_by_a_name_of_its_own() {
        let table = [
            ("127.0.0.1:7470", None),
            ("[::1]:7470", None),
            ("localhost:7470", None),
            ("LOCALHOST", None),
            ("bus.example:80", None),
            ("evil.example", Some(403)),
            ("127.0.0.1.evil.example", Some(403)),
            ("localhost.evil.example:7470", Some(403)),
            ("", Some(403)),
        ];
        for (host, expected) in table {
            assert_eq!(refused(&Method::GET, host, &[]), expected, "{host}");
        }
    }

    #[test]
    fn a_page_of_another_site_neither_looks_nor_acts() {
        let json = ("content-type", "application/json; charset=utf-8");
        let host = "127.0.0.1:7470";
        let own = ("origin", "http://127.0.0.1:7470");
        let (get, post) = (&Method::GET, &Method::POST);
        type Headers<'a> = &'a [(&'static str, &'a str)];
        let table: [(&Method, Headers<'_>, Option<u16>); 12] = [
            (get, &[], None),
            (get, &[("sec-fetch-site", "same-origin")], None),
            (get, &[("sec-fetch-site", "none")], None),
            (get, &[("sec-fetch-site", "cross-site")], Some(403)),
            (get, &[("sec-fetch-site", "same-site")], Some(403)),
            (post, &[json, own], None),
            (post, &[json], Some(403)),
            (post, &[json, ("origin", "null")], Some(403)),
            (post, &[json, ("origin", "http://127.0.0.1:80")], Some(403)),
            (post, &[json, ("origin", "http://evil.example")], Some(403)),
            (post, &[own, ("content-type", "text/plain")], Some(415)),
            (post, &[own], Some(415)),
        ];
        for (method, headers, expected) in table {
            assert_eq!(
                refused(method, host, headers),
                expected,
                "{method} {headers:?}"
            );
        }
    }
}

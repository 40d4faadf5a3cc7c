//! Whatever is killed between any two steps of a change: every host is on one of the two versions, and
//! in the end all are on the same. Real hosts, a real Redis, and SIGKILL.
//!
//! The host that is to die, or that loses its Redis, goes through a [`Proxy`], which counts what the
//! registry asks for: each command is a step. Every one of them is tried, before Redis has heard of it
//! and after it has done it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

use oona_tests::binary::{Host, text, wait_until};
use oona_tests::proxy::{Moment, Proxy};
use oona_tests::redis_server::RedisServer;
use oona_tests::stand::{Stand, UNSIGNED, ask, of_kind, oona};
use serde_json::{Value, json};

/// It reads when it is told to, so that its steps are always the same.
const SELDOM: &str = "registry.poll_ms=60000";

/// More than any change has steps.
const STEPS_MAX: usize = 30;

const MOMENTS: [Moment; 2] = [Moment::Before, Moment::After];

fn kill(process: u32) -> impl FnOnce() + Send + 'static {
    move || {
        let killed = Command::new("kill")
            .args(["-s", "KILL", &process.to_string()])
            .status();
        assert!(killed.unwrap().success());
    }
}

/// What is in use on a host, told apart by digest.
fn in_use(host: &Host) -> String {
    of_kind(host, "routing")["digest"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[track_caller]
fn all_on(hosts: &[&Host], digest: &str, when: &str) {
    for host in hosts {
        let there = wait_until(|| in_use(host) == digest);
        assert!(
            there,
            "{when}: not on {digest}:\n{}\n{}",
            of_kind(host, "routing"),
            host.log()
        );
    }
}

#[track_caller]
fn on_one_of(hosts: &[&Host], versions: [&str; 2], when: &str) {
    for host in hosts {
        let found = in_use(host);
        assert!(
            versions.contains(&&*found),
            "{when}: on neither, but `{found}`"
        );
    }
}

/// The last change of use that the list has.
fn said(host: &Host) -> Value {
    let history = ask(host, &["policy", "history", "routing", "--limit", "1000"]);
    let mut changes = history["changes"].as_array().unwrap().iter().rev();
    let last =
        changes.find(|change| change["action"] == "activate" || change["action"] == "promote");
    last.unwrap().clone()
}

/// A component, and its digest, that no registry has seen.
fn fresh(stand: &Stand, number: usize) -> (String, String) {
    let file = stand.component_with("routing-by-origin", format!("{number}").as_bytes());
    let told = oona_tests::binary::run(&["policy", "inspect", &file, "--output", "json"]);
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    let digest = told["digest"].as_str().unwrap().to_owned();
    (file, digest)
}

/// Two hosts on `old`; one of them, or the Redis, dies at each step of a change to `new`.
struct Scene {
    stand: Stand,
    old: String,
    old_file: String,
    compiled: String,
}

impl Scene {
    fn new() -> Self {
        let stand = Stand::new();
        let old_file = stand.component("routing");
        let told = oona_tests::binary::run(&["policy", "inspect", &old_file, "--output", "json"]);
        let told: Value = serde_json::from_slice(&told.stdout).unwrap();
        let compiled = format!("policies.engine.cache_directory={}", stand.at("compiled"));
        Self {
            old: told["digest"].as_str().unwrap().to_owned(),
            stand,
            old_file,
            compiled,
        }
    }

    fn host(&self, way: &Proxy, name: &str) -> Host {
        self.stand
            .host_at(&way.url(), name, &[UNSIGNED, SELDOM, &self.compiled])
    }

    fn other(&self) -> Host {
        let url = self.stand.redis.url();
        self.stand
            .host_at(&url, "other", &[UNSIGNED, &self.compiled])
    }

    /// All hosts on the old version.
    fn reset(&self, hosts: &[&Host]) {
        let activated = wait_until(|| {
            oona(hosts[0], &["policy", "activate", &self.old_file])
                .status
                .success()
        });
        assert!(activated, "{}", hosts[0].log());
        all_on(hosts, &self.old, "before");
    }
}

/// The host that makes the change dies at each of its steps.
fn the_one_who_changes_dies(
    scene: &Scene,
    tag: usize,
    prepare: &dyn Fn(&Host, &str),
    change: &dyn Fn(&Host, &str),
) -> usize {
    let other = scene.other();
    let mut steps = 0;
    for moment in MOMENTS {
        for number in 1..STEPS_MAX {
            let (file, new) = fresh(&scene.stand, tag + steps);
            let way = Proxy::to(&scene.stand.redis.url());
            let mut host = scene.host(&way, "changes");
            scene.reset(&[&host, &other]);
            prepare(&host, &file);
            way.end_at(number, moment, kill(host.id()));
            change(&host, &file);
            let Some(step) = way.ended_at() else {
                all_on(&[&host, &other], &new, "nothing died");
                break;
            };
            steps += 1;
            let when = format!("killed {moment:?} step {number} ({step})");
            host.wait();
            on_one_of(&[&other], [&scene.old, &new], &when);
            let host = scene.host(&Proxy::to(&scene.stand.redis.url()), "changes");
            on_one_of(&[&host, &other], [&scene.old, &new], &when);
            let expected = said(&host)["digest"].as_str().map(str::to_owned);
            let expected = expected.unwrap_or_else(|| new.clone());
            all_on(&[&host, &other], &expected, &when);
        }
    }
    steps
}

#[test]
fn a_host_that_dies_at_any_step_of_its_activation_leaves_all_on_one_version() {
    let scene = Scene::new();
    let steps = the_one_who_changes_dies(&scene, 0, &|_, _| {}, &|host, file| {
        drop(oona(host, &["policy", "activate", file]));
    });
    // Push the bytes, say so, say that they are in use, and read after each: twice.
    assert!(steps >= 10, "only {steps} steps were tried");
}

#[test]
fn a_host_that_dies_at_any_step_of_a_promotion_leaves_all_on_one_version() {
    let scene = Scene::new();
    let shadow = |host: &Host, file: &str| {
        ask(host, &["policy", "shadow", file]);
    };
    let steps = the_one_who_changes_dies(&scene, 100, &shadow, &|host, _| {
        drop(oona(host, &["policy", "promote", "routing"]));
    });
    assert!(steps >= 4, "only {steps} steps were tried");
}

#[test]
fn a_host_that_dies_at_any_step_of_a_rollback_leaves_all_on_one_version() {
    let scene = Scene::new();
    // Forth to the old one, and back to the new one.
    let forth = |host: &Host, file: &str| {
        ask(host, &["policy", "activate", file]);
        ask(host, &["policy", "activate", &scene.old_file]);
    };
    let steps = the_one_who_changes_dies(&scene, 200, &forth, &|host, _| {
        drop(oona(host, &["policy", "rollback", "routing"]));
    });
    assert!(steps >= 4, "only {steps} steps were tried");
}

#[test]
fn a_host_that_dies_at_any_step_of_following_is_where_all_are_when_it_is_back() {
    let scene = Scene::new();
    let other = scene.other();
    let mut steps = 0;
    for moment in MOMENTS {
        for number in 1..=3 {
            let (file, new) = fresh(&scene.stand, 300 + steps);
            let way = Proxy::to(&scene.stand.redis.url());
            let url = way.url();
            let often = [UNSIGNED, "registry.poll_ms=50", &*scene.compiled];
            let mut host = scene.stand.host_at(&url, "follows", &often);
            scene.reset(&[&other, &host]);
            way.hold();
            way.end_at(number, moment, kill(host.id()));
            ask(&other, &["policy", "activate", &file]);
            on_one_of(&[&host, &other], [&scene.old, &new], "held");
            way.let_go();
            host.wait();
            let when = format!("killed {moment:?} step {number} ({:?})", way.ended_at());
            steps += 1;
            let host = scene
                .stand
                .host_at(&scene.stand.redis.url(), "follows", &often);
            all_on(&[&host, &other], &new, &when);
        }
    }
    assert_eq!(steps, 6);
}

#[test]
fn a_redis_that_dies_at_any_step_of_an_activation_leaves_all_on_one_version() {
    let mut scene = Scene::new();
    let other = scene.other();
    let mut steps = 0;
    for moment in MOMENTS {
        for number in 1..STEPS_MAX {
            let (file, new) = fresh(&scene.stand, 400 + steps);
            let way = Proxy::to(&scene.stand.redis.url());
            let host = scene.host(&way, "changes");
            scene.reset(&[&host, &other]);
            way.end_at(number, moment, kill(scene.stand.redis.id().unwrap()));
            let told = oona(&host, &["policy", "activate", &file]);
            let Some(step) = way.ended_at() else {
                assert!(told.status.success(), "{}", text(&told.stderr));
                break;
            };
            // Whether it was written: nobody can say who has not heard the answer.
            let unknown = text(&told.stderr).contains("it is not known whether it is in use");
            let unchanged = text(&told.stderr).contains("nothing that is in use has changed");
            if step.starts_with("EVAL") {
                assert!(
                    unknown && !unchanged,
                    "{moment:?} {step}: {}",
                    text(&told.stderr)
                );
            }
            steps += 1;
            let when = format!("Redis killed {moment:?} step {number} ({step})");
            on_one_of(&[&host, &other], [&scene.old, &new], &when);
            scene.stand.redis.restart();
            // Whether it was written shows when both have read on.
            let agree = wait_until(|| {
                let (one, two) = (in_use(&host), in_use(&other));
                let last = said(&other)["digest"] == json!(two);
                one == two && last
            });
            assert!(agree, "{when}\n{}\n{}", host.log(), other.log());
            on_one_of(&[&host, &other], [&scene.old, &new], &when);
        }
    }
    assert!(steps >= 10, "only {steps} steps were tried");
}

#[test]
fn a_redis_that_forgets_everything_gets_it_back_from_the_hosts() {
    let mut stand = Stand::on(RedisServer::start_forgetful());
    let (one, two) = (
        stand.host("one", &[UNSIGNED]),
        stand.host("two", &[UNSIGNED]),
    );
    let file = stand.component("routing-by-origin");
    ask(&one, &["policy", "activate", &stand.component("routing")]);
    let activated = ask(&one, &["policy", "activate", &file]);
    let new = activated["policy"]["digest"].as_str().unwrap().to_owned();
    all_on(&[&one, &two], &new, "before");
    let before = ask(&one, &["policy", "history"]);

    stand.redis.kill();
    stand.redis.restart();
    // Whoever comes later has neither cache nor memory of it: the store has it again.
    let late_is_there = wait_until(|| {
        let late = stand.host("late", &[UNSIGNED]);
        let there = in_use(&late) == new;
        drop(std::fs::remove_dir_all(stand.path("late")));
        there
    });
    assert!(late_is_there, "{}\n{}", one.log(), two.log());
    all_on(&[&one, &two], &new, "it is back");
    let strip = |history: &Value| {
        let changes = history["changes"].as_array().unwrap().iter();
        let told = changes.map(|change| (change["revision"].clone(), change["action"].clone()));
        told.collect::<Vec<_>>()
    };
    let after = ask(&stand.host("last", &[UNSIGNED]), &["policy", "history"]);
    assert_eq!(
        strip(&after),
        strip(&before),
        "no entry is there twice, or lost"
    );
    ask(&two, &["policy", "rollback", "routing"]);
    assert!(wait_until(
        || in_use(&one) != new && in_use(&one) == in_use(&two)
    ));
}

#[test]
fn a_list_that_others_have_begun_anew_is_followed_by_all() {
    let mut stand = Stand::on(RedisServer::start_forgetful());
    let mut one = stand.host("one", &[UNSIGNED]);
    let lost = ask(&one, &["policy", "activate", &stand.component("routing")]);
    let lost = lost["policy"]["digest"].as_str().unwrap().to_owned();
    one.kill();
    stand.redis.kill();
    stand.redis.restart();
    // Nobody is there who knows better.
    let two = stand.host("two", &[UNSIGNED]);
    let file = stand.component("routing-by-origin");
    let activated = ask(&two, &["policy", "activate", &file]);
    let new = activated["policy"]["digest"].as_str().unwrap().to_owned();

    let one = stand.host("one", &[UNSIGNED]);
    all_on(&[&one, &two], &new, "the list of the store");
    assert!(stand.path("one").join("list.replaced.jsonl").exists());
    one.wait_for_log("the store has another list than this host had read");
    // What only the old list had can be chosen again.
    let pushed = wait_until(|| {
        let artifacts = ask(&two, &["policy", "list", "--artifacts"]);
        artifacts["artifacts"].to_string().contains(&lost)
    });
    assert!(pushed, "{}", one.log());
    ask(&two, &["policy", "activate", &lost[..12]]);
    all_on(&[&one, &two], &lost, "from what was given back");
}

//! A page that somebody reads while messages flow.

use super::pictures::Traffic;
use super::*;

/// The routing policy that is tried and put in use, pushed by nobody yet.
fn second() -> String {
    let file = policies::directory().join("routing-by-origin.wasm");
    file.to_str().unwrap().to_owned()
}

const ROUTING: &str = "[data-kind='routing']";

/// Waits until the figures of the routing policy have changed.
async fn figures_change(browser: &Browser) {
    let facts = format!("{ROUTING} .facts");
    let before = browser.shown(&facts).await;
    browser
        .wait_for(&facts, |now| before.as_deref() != Some(now))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_and_what_has_the_focus_stays_so_while_messages_flow() {
    let directory = policies::directory();
    let host = Host::start(&["--dev", "--policies", directory.to_str().unwrap()]);
    let address = host.address;
    operate(address, &["policy", "shadow", &second()]);
    let browser = open(address, "policies").await;
    let calls = browser
        .wait_for(&format!("{ROUTING} .facts"), |_| true)
        .await;
    assert!(
        calls.contains("not called yet; limit 10 ms of CPU time"),
        "{calls}"
    );
    assert!(calls.contains("0 of 5 failures in 10 s"), "{calls}");

    let _traffic = Traffic::begin(address).await;
    browser.click(&format!("{ROUTING} summary")).await;
    let config = format!("{ROUTING} details pre");
    browser.wait_for(&config, |_| true).await;
    let focus = "document.querySelector(arguments[0]).focus(); getSelection().selectAllChildren(document.querySelector(arguments[1]))";
    let promote = format!("{ROUTING} .trial .primary");
    let name = format!("{ROUTING} [data-figure='policy:routing']");
    browser.wait_for(&promote, |_| true).await;
    browser.ask(focus, vec![promote.into(), name.into()]).await;
    for _ in 0..3 {
        figures_change(&browser).await;
    }
    browser.wait_for(&config, |_| true).await;
    let focused = browser.ask("return document.activeElement.innerText", vec![]);
    assert_eq!(focused.await, "Promote…");
    let selected = browser.ask("return String(getSelection())", vec![]).await;
    assert_eq!(selected, "routing 0.1.0");
    browser
        .wait_for(&format!("{ROUTING} .facts"), |calls| {
            calls.contains("by the clock (a batch, in the last 20 s); limit 10 ms of CPU time")
        })
        .await;
    browser.enter().await;
    browser
        .wait_for("dialog", |asked| {
            asked.starts_with("Promote routing-by-origin")
        })
        .await;
    browser.close().await;
}

/// What the history says of a change.
async fn change(browser: &Browser, revision: u64, says: &str) {
    let row = format!("#history [data-revision='{revision}']");
    browser.wait_for(&row, |text| text.contains(says)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_says_what_was_put_in_use_and_what_was_different() {
    let host = Host::start(&["--dev"]);
    let address = host.address;
    let scratch = TempDir::new().unwrap();
    let config = |name: &str, origins: &str| {
        let path = scratch.path().join(name);
        let text = format!("origins = {origins}\nstream = 'oona.telemetry'\n");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (first, other) = (
        config("first.toml", "['edge']"),
        config("other.toml", "['edge', 'field']"),
    );
    operate(
        address,
        &["policy", "activate", &second(), "--config", &first],
    );
    let again = ["policy", "activate", "--kind", "routing", "--config"];
    operate(address, &[&again[..], &[&other]].concat());
    for _ in 0..2 {
        operate(address, &["policy", "rollback", "routing"]);
    }
    let browser = open(address, "policies").await;
    change(&browser, 2, "routing-by-origin 2.0.0").await;
    change(&browser, 2, r#"with {"origins":["edge"]"#).await;
    change(&browser, 3, r#"origins: ["edge"] → ["edge","field"]"#).await;
    change(&browser, 4, r#"origins: ["edge","field"] → ["edge"]"#).await;
    change(&browser, 4, "back to 2").await;
    change(&browser, 5, "routing as the hosts were started").await;
    close(browser).await;
}

//! What is not known, or not there, is said to be so.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn alerts_are_not_known_before_the_host_has_said_so() {
    let host = Host::start(&["--dev"]);
    let browser = open(host.address, "overview").await;
    host.signal("STOP");
    browser.wait_for("#lost", |_| true).await;
    browser.press("4").await;
    let silent = browser.wait_for("main", |said| {
        said.contains("Alerts could not be read: the host does not answer")
    });
    let said = silent.await;
    assert!(said.contains("Not known yet"), "{said}");
    assert!(!said.contains("Nothing has fired"), "{said}");
    host.signal("CONT");
    browser
        .wait_for("#recent", |said| {
            said.contains("Nothing has fired since the start")
        })
        .await;
    browser.wait_until_gone("main .wrong").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_are_told_in_words() {
    let host = Host::start(&["--dev"]);
    let address = host.address;
    let browser = open(address, "alerts").await;
    let card = |number: u8| format!("#objectives .card:nth-child({number})");
    let [publish, reliability] = [card(1), card(3)];
    let said = browser.wait_for(&publish, |_| true).await;
    for words in [
        "publish p95 under 25 ms",
        "no events yet",
        "95 % over 30 days",
        "since the start (",
    ] {
        assert!(said.contains(words), "no `{words}` in\n{said}");
    }
    let watched = browser.wait_for("#calm", |_| true).await;
    assert!(watched.contains("0 × the limit"), "{watched}");

    // The only message that was settled was not handled; one in a hundred may be.
    let _subscriber = file_a_letter(address, "one", "one").await;
    browser
        .wait_for(&reliability, |said| {
            said.contains("budget overspent 100-fold")
        })
        .await;
    let meter =
        "const { value, optimum } = document.querySelector(arguments[0]).querySelector('meter');
        return [value, optimum]";
    let full_where_low_is_good = browser.ask(meter, vec![reliability.into()]).await;
    assert_eq!(full_where_low_is_good, json!([1, 0]));
    close(browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_not_there_is_closed_and_cannot_be_redriven() {
    let host = Host::start(&["--dev"]);
    let browser = open(host.address, "dead-letters/123-0").await;
    browser
        .wait_for("#letter .wrong", |said| said.contains("123-0"))
        .await;
    browser.press("r").await;
    assert_eq!(browser.shown("dialog").await, None);
    browser.click("#letter a.button").await;
    browser.wait_until_gone("#letter").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journey_is_forgotten_when_its_id_is() {
    let host = Host::start(&["--dev"]);
    let address = host.address;
    retry_once(address, "order/7").await;
    let browser = open(address, "journey/order%2F7").await;
    browser.wait_for("#journey .steps", |_| true).await;
    let steps = browser.shown("#journey .steps").await.unwrap();
    assert!(steps.contains("< 1 ms") || steps.contains("+"), "{steps}");
    assert!(!steps.contains("+0 ms"), "{steps}");
    let go = async |page: &str| browser.go(&format!("http://{address}/#/{page}")).await;
    go("journey").await;
    browser.wait_until_gone("#journey .steps").await;
    let asks = |said: &str| said.starts_with("Give the event id");
    browser.wait_for("#journey .empty", asks).await;

    go("journey/nobody").await;
    browser
        .wait_for("#journey .empty code", |id| id == "nobody")
        .await;
    go("journey").await;
    browser.wait_for("#journey .empty", asks).await;
    browser.close().await;
}

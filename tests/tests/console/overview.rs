//! What the overview says, and what it must not say.

use oona_tests::http::get_with;
use oona_tests::redis_server::RedisServer;

use super::*;

/// Lets a page have answers of `/v1/overview` that a script has had in its hands, as `answer`.
async fn doctored(browser: &Browser, script: &str) {
    let wrap = format!(
        "const real = window.fetch;
        window.fetch = async (path, options) => {{
            const response = await real(path, options);
            if (!String(path).startsWith('/v1/overview') || !response.ok) return response;
            const answer = await response.json();
            {script}
            return new Response(JSON.stringify(answer));
        }};"
    );
    browser.ask(&wrap, Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_is_said_on_every_page() {
    let mut redis = RedisServer::start();
    let url = format!("store.url={}", redis.url());
    let host = Host::start(&["--set", &url]);
    let browser = open(host.address, "overview").await;
    let store = "[data-figure='breaker:store']";
    browser.wait_for(store, |state| state == "answers").await;
    assert_eq!(browser.shown("#trouble").await, None);
    redis.kill();
    for key in 1..=PAGES.len() {
        browser.press(&key.to_string()).await;
        browser
            .wait_for("#trouble", |said| {
                said.contains("Not ready") && said.contains("does not answer")
            })
            .await;
    }
    browser.press("1").await;
    browser
        .wait_for(store, |state| state == "does not answer")
        .await;
    redis.restart();
    browser.wait_for(store, |state| state == "answers").await;
    browser.wait_until_gone("#trouble").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_known_no_more_leads_to_the_sign_in() {
    let all = "'policies:write', 'dead-letters:write', 'bus:write'";
    let policies = "'policies:read'";
    let (host, _directory) =
        host_with_tokens(&[("ada", "all", all), ("bob", "policies", policies)]);
    let browser = Browser::open(DESK).await;
    browser.go(&format!("http://{}/", host.address)).await;
    // Whatever it is that is asked for: the overview, or where that is not allowed the policies.
    for (name, token, shown) in [
        ("ada", "all", "#in-use"),
        ("bob", "policies", "[data-figure='policy:routing']"),
        ("ada", "all", "#in-use"),
    ] {
        browser.write("#token", token).await;
        browser.enter().await;
        browser.wait_for("#name", |shown| shown == name).await;
        browser.wait_for(shown, |_| true).await;
        let revoked = "sessionStorage.setItem('oona-token', 'revoked')";
        browser.ask(revoked, Vec::new()).await;
        browser
            .wait_for("dialog .wrong", |why| {
                why.contains("does not know this token")
            })
            .await;
        assert_eq!(browser.shown("#lost").await, None);
        // Nothing of what the one before was shown stays.
        assert_eq!(browser.shown(shown).await, None);
    }
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_refuses_is_no_lost_connection() {
    let host = Host::start(&["--dev"]);
    let browser = open(host.address, "overview").await;
    let refuse =
        "window.fetch = async () => new Response('{\"error\": \"not so often\"}', { status: 429 })";
    browser.ask(refuse, Vec::new()).await;
    let said = browser
        .wait_for("#lost", |said| said.contains("not so often"))
        .await;
    assert!(said.starts_with("The host refuses this"), "{said}");
    assert!(!said.contains("Connection lost"), "{said}");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_is_told_with_who_decided_and_an_example_whatever_is_in_use_now() {
    let rules = "policies.routing.config.rules=[{name = 'spam', source = 'spammer'}]";
    let host = Host::start(&["--dev", "--set", rules]);
    let address = host.address;
    let spam = json!({ "type": "telemetry", "id": "spam/1", "source": "spammer" });
    assert_ne!(publish(address, &spam).status, 200);
    let large = json!({ "type": "telemetry", "id": "large/1", "payload": "x".repeat(300_000) });
    assert_eq!(publish(address, &large).status, 413);
    let by_policy = |row: &str| row.contains("routing ") && !row.contains("the host");
    let browser = open(address, "overview").await;
    let rows = "#rejections tbody";
    let row = |reason: &str| format!("#rejections tr:has([data-figure='rejected:{reason}'])");
    browser
        .wait_for(&row("rule:spam"), |row| {
            by_policy(row) && row.contains("spam/1") && row.contains("by `spammer`")
        })
        .await;
    browser
        .wait_for(rows, |rows| {
            rows.contains("the host") && rows.contains("large/1")
        })
        .await;

    let file = policies::directory().join("routing-by-origin.wasm");
    let directory = TempDir::new().unwrap();
    let config = directory.path().join("config.json");
    fs::write(&config, r#"{"origins": ["edge"]}"#).unwrap();
    let (file, config) = (file.to_str().unwrap(), config.to_str().unwrap());
    operate(address, &["policy", "activate", file, "--config", config]);
    browser
        .wait_for("[data-figure='version:routing']", |version| {
            version.starts_with("routing-by-origin")
        })
        .await;
    let told = browser.shown(&row("rule:spam")).await.unwrap_or_default();
    assert!(by_policy(&told), "{told}");

    browser.click("#rejections a").await;
    browser
        .wait_for("#journey", |journey| {
            journey.contains("rule:spam") && journey.contains("by spammer")
        })
        .await;
    close(browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_dead_letter_is_told_with_its_cause_to_whoever_may_read_it() {
    let (host, _directory) = host_with_tokens(&[
        ("ada", "letters", "'bus:read', 'dead-letters:read'"),
        ("bob", "bus", "'bus:read'"),
    ]);
    let address = host.address;
    let _subscriber = file_a_letter(address, "order/7", "a crate").await;
    let last = |token: &str| {
        let overview = get_with(address, "/v1/overview", token).json();
        overview["dead_letters"].clone()
    };
    assert!(wait_until(
        || last("letters")["last"]["event_id"] == "order/7"
    ));
    let hidden = last("bus");
    assert_eq!(
        (&hidden["length"], &hidden["last"]),
        (&json!(1), &Value::Null)
    );
    assert_eq!(hidden["lacks"], "dead-letters:read");

    let browser = Browser::open(DESK).await;
    browser.go(&format!("http://{address}/")).await;
    browser.write("#token", "bus").await;
    browser.enter().await;
    browser
        .wait_for("#last-letter", |text| text.contains("dead-letters:read"))
        .await;
    browser.click("#sign-out").await;
    browser.write("#token", "letters").await;
    browser.enter().await;
    browser
        .wait_for("[data-figure='last-letter-cause']", |cause| {
            cause == "poison: cannot read a crate"
        })
        .await;
    let letter = browser.wait_for("#last-letter", |text| text.contains("telemetry"));
    assert!(letter.await.contains("order/7"));
    browser.click("[data-figure='last-letter-event'] a").await;
    browser
        .wait_for("#journey", |journey| {
            journey.contains("cannot read a crate")
        })
        .await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_just_arrived_waits_though_its_age_is_not_known() {
    let host = Host::start(&["--dev"]);
    let browser = open(host.address, "overview").await;
    let tile = ".tile:has([data-figure='oldest'])";
    browser
        .wait_for(tile, |tile| tile.contains("nothing waits"))
        .await;
    doctored(
        &browser,
        "const stream = answer.status.streams.find(({ name }) => name === 'oona.normal');
        Object.assign(stream, { depth: 3, oldest_age_ms: null });",
    )
    .await;
    browser
        .wait_for("[data-figure='depth']", |depth| depth == "3")
        .await;
    let told = browser.shown(tile).await.unwrap_or_default();
    assert!(
        told.contains("just arrived") && told.contains("oona.normal"),
        "{told}"
    );
    assert!(!told.contains("nothing waits"), "{told}");
    let row = browser.shown("[data-figure='oldest:oona.normal']").await;
    assert_eq!(row.as_deref(), Some("just arrived"));
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_latency_is_not_told_finer_than_it_is_measured() {
    let host = Host::start(&["--dev"]);
    let browser = open(host.address, "overview").await;
    doctored(
        &browser,
        "for (const stage of answer.stages) Object.assign(stage, { count: 9, p50_ms: 0, p95_ms: 1.004, p99_ms: 5000 });",
    )
    .await;
    let table = [
        ("p50:delivery", "< 1 ms"),
        ("p95:delivery", "1 ms"),
        ("p95:end_to_end", "1 ms"),
        ("p99:end_to_end", "5,000 ms"),
        ("p95:publish", "1.00 ms"),
    ];
    for (figure, expected) in table {
        let selector = format!("[data-figure='{figure}']");
        browser.wait_for(&selector, |told| told == expected).await;
    }
    browser.close().await;
}

/// The colour of each reason of routing: of the card, and of the legend of the chart.
const TONES: &str = "
    const tones = (rows) => Object.fromEntries([...document.querySelectorAll(rows)].map((row) =>
        [row.querySelector('span')?.innerText ?? row.innerText, row.querySelector('i').className]));
    return [tones('#in-use [data-kind=routing] li'), tones('#in-use .keys .key')]";

#[tokio::test(flavor = "multi_thread")]
async fn a_chart_is_of_the_card_that_is_chosen_and_a_reason_has_one_colour() {
    let host = Host::start(&["--dev"]);
    let address = host.address;
    let route = |priority: &str| {
        let message = json!({ "type": "field_report", "priority": priority });
        assert_eq!(publish(address, &message).status, 200);
    };
    // One reason leads since the start, another one since the page is open.
    for _ in 0..3 {
        route("normal");
    }
    let browser = open(address, "overview").await;
    let (chart, keys) = ("#in-use .drawing", "#in-use .keys");
    browser
        .wait_for("[data-figure='decided:routing:type']", |count| count == "3")
        .await;
    browser
        .wait_for(chart, |words| words.contains("No decisions since"))
        .await;
    route("emergency");
    browser
        .wait_for("[data-figure='decided:routing:emergency']", |count| {
            count == "1"
        })
        .await;
    browser
        .wait_for(keys, |keys| keys.contains("emergency"))
        .await;
    let tones = browser.ask(TONES, Vec::new()).await;
    let (card, legend) = (&tones[0], &tones[1]);
    assert_eq!(card.as_object().unwrap().len(), 2, "{tones}");
    assert_eq!(legend.as_object().unwrap().len(), 1, "{tones}");
    assert_eq!(card["emergency"], legend["emergency"], "{tones}");
    assert_ne!(card["emergency"], card["type"], "{tones}");
    browser.find("#in-use .drawing .uplot").await;

    browser.click("#in-use [data-kind='dead-letter']").await;
    browser
        .wait_for(chart, |words| {
            words == "No decisions since this page was opened."
        })
        .await;
    let plots = "return document.querySelectorAll('#in-use .uplot').length";
    assert_eq!(browser.ask(plots, Vec::new()).await, 0);
    assert_eq!(browser.shown(keys).await.as_deref(), Some(""));
    browser.click("#in-use [data-kind='routing']").await;
    browser
        .wait_for(keys, |keys| keys.contains("emergency"))
        .await;
    assert_eq!(browser.ask(plots, Vec::new()).await, 1);
    close(browser).await;
}

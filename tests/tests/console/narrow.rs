//! The pages on a phone.

use super::*;

/// A phone of today: its width and height.
const SCREEN: (u32, u32) = (390, 844);

/// What is shown and not within the screen, or hidden in what must be pushed aside to be seen.
const OUTSIDE: &str = "
    const all = [...document.querySelectorAll('main :is(td, th, dd, dt, li, p, a, button, strong, input, select)')];
    const isOutside = (element) => {
        const { left, right } = element.getBoundingClientRect();
        return left < -0.5 || right > innerWidth + 0.5;
    };
    const isCut = (element) => element.scrollWidth > element.clientWidth + 1;
    const outside = all.filter((element) => element.checkVisibility() && isOutside(element));
    const cut = [...document.querySelectorAll('main .scroll')].filter(isCut);
    return [...outside, ...cut].map((element) => `${element.tagName}: ${element.innerText}`);";

/// What a column is called, at the cell that fits a selector.
async fn title(browser: &Browser, selector: &str) -> String {
    let script =
        "return getComputedStyle(document.querySelector(arguments[0]), '::before').content";
    let title = browser.ask(script, vec![selector.into()]).await;
    title.as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_matters_is_outside_the_screen_of_a_phone() {
    let host = Host::start(&["--dev", "--set", "alerts.looks=1"]);
    let address = host.address;
    let _subscriber = file_a_letter(address, "one", "one").await;
    let second = policies::directory().join("routing-by-origin.wasm");
    let second = second.to_str().unwrap();
    let why = "the edge has starved the rest since yesterday, says the night shift";
    operate(address, &["policy", "activate", second, "--message", why]);
    operate(address, &["policy", "rollback", "routing"]);
    operate(address, &["breaker", "open", "publish", "--message", why]);

    let browser = Browser::open(SCREEN).await;
    let filled = [
        ("overview", "#streams tbody", "workers 0 / 0"),
        ("policies", "#history tbody", "night shift"),
        ("dead-letters", "#letters tbody", "poison"),
        ("alerts", "#alerts tbody", "firing"),
        ("alerts", "#recent tbody", "fired"),
        ("journey/one", "#journey .steps", "dead letter"),
    ];
    for (page, selector, says) in filled {
        browser.go(&format!("http://{address}/#/{page}")).await;
        browser.wait_for(selector, |text| text.contains(says)).await;
        assert_eq!(browser.ask(OUTSIDE, vec![]).await, json!([]), "{page}");
    }
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_a_card_on_a_phone() {
    let host = Host::start(&["--dev", "--set", "alerts.looks=1"]);
    let address = host.address;
    operate(address, &["breaker", "open", "publish"]);
    let browser = Browser::open(SCREEN).await;
    browser.go(&format!("http://{address}/#/alerts")).await;
    browser
        .wait_for("#alerts tbody", |text| {
            text.contains("oona breaker release publish")
        })
        .await;
    let places = "
        const at = (selector) => document.querySelector(`#alerts tr ${selector}`).getBoundingClientRect();
        const [name, why, value] = [at('strong'), at('td.words'), at('td.number')];
        return [why.width > innerWidth / 2, name.bottom <= why.top, why.bottom <= value.top]";
    assert_eq!(browser.ask(places, vec![]).await, json!([true, true, true]));
    assert_eq!(
        title(&browser, "#calm td:last-child").await,
        "\"Threshold \""
    );
    browser.go(&format!("http://{address}/#/overview")).await;
    let settled = "[data-figure='settled:oona.normal']";
    browser.wait_for(settled, |_| true).await;
    assert_eq!(title(&browser, settled).await, "\"Settled/s \"");
    browser.close().await;
}

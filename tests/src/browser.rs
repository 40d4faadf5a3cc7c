//! A browser, as somebody sits in front of it: a real Chromium without a window, over WebDriver.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, thread};

use fantoccini::elements::Element;
use fantoccini::key::Key;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use crate::binary::PATIENCE;

/// The width and height of a screen on a desk.
pub const DESK: (u32, u32) = (1440, 1100);

/// The width and height of a small phone.
pub const PHONE: (u32, u32) = (360, 740);

/// See the module. Ended when dropped, however the test went.
#[derive(Debug)]
pub struct Browser {
    client: Client,
    driver: Driver,
}

/// The process that drives it: it leads a group of its own, which the browser is in.
#[derive(Debug)]
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        drop(
            Command::new("kill")
                .args(["-s", "KILL", "--", &group])
                .status(),
        );
        drop(self.0.wait());
    }
}

impl Driver {
    /// Starts it on a free port; says on which.
    fn start() -> (Self, u16) {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").process_group(0);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command
            .spawn()
            .expect("chromedriver is installed: run tests/setup.sh chromium");
        let stdout = child.stdout.take().expect("it is piped");
        let driver = Self(child);
        let (out, port) = mpsc::channel();
        // Empties the pipe until it ends.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let said = line.split_once("started successfully on port ");
                let said = said.and_then(|(_, port)| port.trim_end_matches('.').parse().ok());
                if let Some(port) = said {
                    out.send(port).ok();
                }
            }
        });
        let port = port.recv_timeout(PATIENCE);
        (driver, port.expect("chromedriver says its port"))
    }
}

/// What the page has said on its console of late.
#[derive(Debug)]
struct ReadLog;

impl WebDriverCompatibleCommand for ReadLog {
    fn endpoint(
        &self,
        base_url: &url::Url,
        session_id: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base_url.join(&format!(
            "session/{}/se/log",
            session_id.unwrap_or_default()
        ))
    }

    fn method_and_body(&self, _: &url::Url) -> (axum::http::Method, Option<String>) {
        let body = json!({ "type": "browser" }).to_string();
        (axum::http::Method::POST, Some(body))
    }
}

impl Browser {
    /// Opens a browser with a screen of this size.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub async fn open(size: (u32, u32)) -> Self {
        Self::open_with(size, false).await
    }

    /// As [`Browser::open`], for somebody who likes it dark.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub async fn open_dark(size: (u32, u32)) -> Self {
        Self::open_with(size, true).await
    }

    async fn open_with((width, height): (u32, u32), dark: bool) -> Self {
        let (driver, port) = Driver::start();
        let scheme = format!("--blink-settings=preferredColorScheme={}", u8::from(!dark));
        let mut options = json!({
            "args": [
                "--headless=new",
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                scheme,
            ],
            // A window is never as narrow as a phone; a screen is.
            "mobileEmulation": { "deviceMetrics": {
                "width": width, "height": height, "pixelRatio": 1.0, "mobile": false, "touch": false,
            } },
        });
        if let Some(binary) = env::var_os("CHROMIUM") {
            options["binary"] = binary.to_string_lossy().into();
        }
        let capabilities = json!({
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let capabilities = capabilities.as_object().cloned().unwrap_or_default();
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities);
        let client = builder.connect(&format!("http://127.0.0.1:{port}")).await;
        let client = client.expect("a browser opens: run tests/setup.sh chromium");
        Self { client, driver }
    }

    /// Goes to an address.
    ///
    /// # Panics
    ///
    /// If the browser does not.
    pub async fn go(&self, address: &str) {
        self.client.goto(address).await.expect("it goes there");
    }

    /// The first element that fits a selector.
    ///
    /// # Panics
    ///
    /// If none comes.
    pub async fn find(&self, selector: &str) -> Element {
        let wait = self.client.wait().at_most(PATIENCE);
        let found = wait.for_element(Locator::Css(selector)).await;
        match found {
            Ok(element) => element,
            Err(error) => panic!("no `{selector}` ({error}) in\n{}", self.text().await),
        }
    }

    /// Clicks on what fits a selector.
    ///
    /// # Panics
    ///
    /// If it cannot be clicked on.
    pub async fn click(&self, selector: &str) {
        let clicked = self.eventually(async || {
            let element = self.client.find(Locator::Css(selector)).await.ok()?;
            element.click().await.ok()
        });
        if clicked.await.is_none() {
            panic!(
                "`{selector}` cannot be clicked on in\n{}",
                self.text().await
            );
        }
    }

    /// Types into what fits a selector.
    ///
    /// # Panics
    ///
    /// If it takes nothing.
    pub async fn write(&self, selector: &str, text: &str) {
        let element = self.find(selector).await;
        element.send_keys(text).await.expect("it can be filled in");
    }

    /// Presses a key, wherever the focus is.
    ///
    /// # Panics
    ///
    /// If there is nothing to press it on.
    pub async fn press(&self, key: &str) {
        let focused = self.client.active_element().await.expect("a focus");
        focused.send_keys(key).await.expect("it takes keys");
    }

    /// Presses Enter.
    pub async fn enter(&self) {
        self.press(&String::from(char::from(Key::Enter))).await;
    }

    /// All that is shown.
    pub async fn text(&self) -> String {
        let script = "return document.body.innerText";
        let text = self.client.execute(script, Vec::new()).await;
        text.map_or_else(|error| error.to_string(), |text| told(&text))
    }

    /// What is shown of the first element that fits a selector; nothing if none does.
    pub async fn shown(&self, selector: &str) -> Option<String> {
        let script = "const found = document.querySelector(arguments[0]);
            return found && found.checkVisibility() ? found.innerText : null";
        let text = self.ask(script, vec![selector.into()]).await;
        text.as_str().map(str::to_owned)
    }

    /// What a script returns.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub async fn ask(&self, script: &str, arguments: Vec<Value>) -> Value {
        let answer = self.client.execute(script, arguments).await;
        answer.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits until what is shown of an element is as it should be.
    ///
    /// # Panics
    ///
    /// If it never is.
    pub async fn wait_for(&self, selector: &str, is_right: impl Fn(&str) -> bool) -> String {
        let right =
            self.eventually(async || self.shown(selector).await.filter(|text| is_right(text)));
        match right.await {
            Some(text) => text,
            None => panic!(
                "`{selector}` is {:?} in\n{}",
                self.shown(selector).await,
                self.text().await
            ),
        }
    }

    /// Waits until an element is shown no more.
    ///
    /// # Panics
    ///
    /// If it stays.
    pub async fn wait_until_gone(&self, selector: &str) {
        let gone = self.eventually(async || self.shown(selector).await.is_none().then_some(()));
        assert!(gone.await.is_some(), "`{selector}` is still there");
    }

    /// Tries until there is something; nothing if there never is.
    pub async fn eventually<T>(&self, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look().await {
                return Some(found);
            }
            if Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// By how many pixels the page is wider than the screen.
    pub async fn overflow(&self) -> i64 {
        let script = "return document.documentElement.scrollWidth - innerWidth";
        self.ask(script, Vec::new())
            .await
            .as_i64()
            .expect("a number")
    }

    /// What the page has said on its console since it was last asked: errors, and what its policy forbids.
    ///
    /// # Panics
    ///
    /// If the browser does not say.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.client.issue_cmd(ReadLog).await.expect("a log");
        let entries = log.as_array().cloned().unwrap_or_default();
        let entries = entries.iter().filter(|entry| entry["level"] != "INFO");
        entries.map(|entry| told(&entry["message"])).collect()
    }

    /// A picture of what is shown, as PNG.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub async fn picture(&self) -> Vec<u8> {
        self.client.screenshot().await.expect("a picture")
    }

    /// Ends it.
    pub async fn close(self) {
        let Self { client, driver } = self;
        drop(client.close().await);
        drop(driver);
    }
}

fn told(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

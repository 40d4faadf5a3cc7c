//! A picture of each page.

use super::*;

/// Pictures of each page: into a directory that OONA_SCREENSHOTS names, or one that nobody keeps.
#[tokio::test(flavor = "multi_thread")]
async fn screenshots() {
    let scratch = TempDir::new().unwrap();
    let directory = std::env::var_os(KEPT_IN);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let directory = directory.map_or(scratch.path().to_owned(), |given| root.join(given));
    let host = Host::start(&[
        "--dev",
        "--policies",
        policies::directory().to_str().unwrap(),
        "--set",
        "alerts.looks=1",
        "--set",
        "alerts.dead_letters_per_minute=2",
        "--set",
        "alerts.dead_letters_clear_per_minute=0",
        "--set",
        "dead_letters.audit_interval_ms=5000",
    ]);
    let address = host.address;
    retry_once(address, RETRIED).await;
    let _traffic = Traffic::begin(address).await;
    let large = json!({ "type": "telemetry", "payload": "x".repeat(300_000) });
    assert_eq!(publish(address, &large).status, 413);
    let browser = open(address, "overview").await;
    drawn(&browser).await;
    for (page, selector) in PAGES {
        browser.go(&format!("http://{address}/#/{page}")).await;
        browser.wait_for(selector, |_| true).await;
        prepare(&browser, page).await;
        keep(&directory, page, &browser.picture().await);
    }
    browser.close().await;
    for (name, browser) in [
        ("overview-dark", Browser::open_dark(DESK).await),
        ("overview-phone", Browser::open(PHONE).await),
    ] {
        browser.go(&format!("http://{address}/")).await;
        browser.wait_for("#streams tbody", |_| true).await;
        drawn(&browser).await;
        keep(&directory, name, &browser.picture().await);
        browser.close().await;
    }
}

/// The event id of the message whose journey is shown.
const RETRIED: &str = "prefetch-000040";

/// Brings to a page what is worth a picture.
async fn prepare(browser: &Browser, page: &str) {
    match page {
        "dead-letters" => {
            browser.click("#letters tbody a").await;
            browser.wait_for("#letter pre", |_| true).await;
            browser
                .wait_for("#audit", |text| text.contains("poison"))
                .await;
        }
        "alerts" => {
            browser
                .wait_for("#recent tbody", |text| text.contains("dead letter rate"))
                .await;
        }
        "journey" => {
            browser.write("#journey input", RETRIED).await;
            browser.enter().await;
            browser.wait_for(".step", |_| true).await;
        }
        _ => {}
    }
}

/// Waits until there is a line of decisions to be seen.
async fn drawn(browser: &Browser) {
    let samples = "return Number(document.querySelector('#in-use .drawing').dataset.samples ?? 0)";
    let enough = browser.eventually(async || {
        let count = browser.ask(samples, Vec::new()).await.as_u64();
        count.filter(|count| *count >= SAMPLES_MIN)
    });
    assert!(enough.await.is_some(), "nothing is drawn");
}

/// As many samples as make a line.
const SAMPLES_MIN: u64 = 8;

/// Where pictures go that somebody wants to keep.
const KEPT_IN: &str = "OONA_SCREENSHOTS";

/// The largest picture that is worth keeping, in bytes. What is on one depends on what has fired.
const PICTURE_BYTES_MAX: usize = 160 * 1024;

fn keep(directory: &Path, name: &str, picture: &[u8]) {
    assert!(picture.starts_with(b"\x89PNG"), "{name}");
    let size = picture.len();
    let is_kept = std::env::var_os(KEPT_IN).is_some();
    assert!(!is_kept || size <= PICTURE_BYTES_MAX, "{name}: {size}");
    fs::write(directory.join(name).with_extension("png"), picture).unwrap();
}

/// Something to look at: messages that are handled, a few that are refused, and one that nobody can read.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    handler: JoinHandle<()>,
    producer: Option<thread::JoinHandle<()>>,
}

impl Traffic {
    pub(super) async fn begin(address: SocketAddr) -> Self {
        let mut subscriber = file_a_letter(address, "prefetch-000041", "blueprint=softmax").await;
        for id in ["prefetch-000042", "prefetch-000043"] {
            refuse(&mut subscriber, address, id, "blueprint=").await;
        }
        let handler = tokio::spawn(async move {
            loop {
                let delivery = subscriber.next().await;
                subscriber.ack(vec![delivery.id]).await;
            }
        });
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let producer = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                round(address);
                thread::park_timeout(Duration::from_millis(20));
            }
        });
        Self {
            stop,
            handler,
            producer: Some(producer),
        }
    }
}

fn round(address: SocketAddr) {
    for kind in [
        "telemetry",
        "field_report",
        "kernel_prefetch_request",
        "adaptation_command",
    ] {
        let message = json!({ "type": kind, "source": "trainer", "payload": "loss 0.25" });
        assert_eq!(publish(address, &message).status, 200);
    }
    let urgent = json!({ "type": "field_report", "priority": "high", "source": "guard" });
    assert_eq!(publish(address, &urgent).status, 200);
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.handler.abort();
        if let Some(producer) = self.producer.take() {
            drop(producer.join());
        }
    }
}

//! Tells an address of each alert that fires or is over: a POST of JSON.
//!
//! A notice waits in a bounded queue for one task that sends them in order. What there is no room for is left out,
//! and counted; so is what was not taken after [`ATTEMPTS_MAX`] attempts. Nobody ever waits for the webhook.

use std::sync::Arc;
use std::time::Duration;

use oona_core::Timestamp;
use oona_core::alert::Change;
use oona_core::schedule::Backoff;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, redirect};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::board::{AlertStatus, Board};
use super::config::WebhookUrl;
use crate::chain::chain;

/// How many notices may wait.
pub const WAITING_MAX: usize = 64;

/// How often one is sent before it is given up.
pub const ATTEMPTS_MAX: u32 = 6;

/// Between two attempts.
const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(500),
    max: Duration::from_secs(30),
};

/// What is told. See docs/alerts.md.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Notice {
    at_ms: u64,
    host: String,
    what: Change,
    #[serde(flatten)]
    alert: AlertStatus,
}

impl Notice {
    pub(super) fn new(now: Timestamp, host: &str, what: Change, alert: &AlertStatus) -> Self {
        Self {
            at_ms: now.as_millis(),
            host: host.to_owned(),
            what,
            alert: alert.clone(),
        }
    }
}

/// See the module.
pub(super) struct Webhook {
    queue: mpsc::Sender<Notice>,
    board: Arc<Board>,
    sending: JoinHandle<()>,
}

impl Webhook {
    /// Starts the task that sends, until `stop`. `None`, and a word in the log, if this machine can send nothing.
    pub(super) fn start(
        url: WebhookUrl,
        timeout: Duration,
        board: &Arc<Board>,
        stop: CancellationToken,
    ) -> Option<Self> {
        let client = client(timeout)
            .inspect_err(|error| tracing::error!(error = %chain(error), %url, "no webhook"))
            .ok()?;
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let sender = Sender {
            client,
            url,
            board: Arc::clone(board),
        };
        let sending = tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = sender.send_all(waiting) => {}
            }
        });
        Some(Self {
            queue,
            board: Arc::clone(board),
            sending,
        })
    }

    /// Hands a notice over, if there is room for one.
    pub(super) fn send(&self, notice: Notice) {
        if self.queue.try_send(notice).is_err() {
            self.board.count_notice("left_out");
        }
    }

    /// Waits for the task that was told to stop.
    pub(super) async fn end(self) {
        drop(self.queue);
        drop(self.sending.await);
    }
}

/// A client that follows no redirection.
pub(crate) fn client(timeout: Duration) -> Result<Client, reqwest::Error> {
    // Whoever was first has installed the same.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder()
        .timeout(timeout)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("oona/", env!("CARGO_PKG_VERSION")))
        .build()
}

struct Sender {
    client: Client,
    url: WebhookUrl,
    board: Arc<Board>,
}

impl Sender {
    async fn send_all(self, mut waiting: mpsc::Receiver<Notice>) {
        while let Some(notice) = waiting.recv().await {
            let body = serde_json::to_vec(&notice);
            let body = body.unwrap_or_else(|error| unreachable!("a notice is JSON: {error}"));
            self.board.count_notice(self.send(body).await);
        }
    }

    /// Sends one, again and again if need be; what became of it.
    async fn send(&self, body: Vec<u8>) -> &'static str {
        for failures in 0..ATTEMPTS_MAX {
            let Err(why) = self.attempt(body.clone()).await else {
                return "sent";
            };
            tracing::warn!(url = %self.url, why, attempt = failures + 1, "the webhook was not told");
            if failures + 1 < ATTEMPTS_MAX {
                tokio::time::sleep(BACKOFF.delay(failures)).await;
            }
        }
        "failed"
    }

    async fn attempt(&self, body: Vec<u8>) -> Result<(), String> {
        let json = HeaderValue::from_static("application/json");
        let request = self.client.post(self.url.reveal().clone());
        let answer = request.header(CONTENT_TYPE, json).body(body).send().await;
        // An error quotes the address, and the address may hold a secret.
        let answer = answer.map_err(|error| chain(&error.without_url()))?;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(format!("it answered {}", answer.status()))
        }
    }
}

#[cfg(test)]
mod tests;

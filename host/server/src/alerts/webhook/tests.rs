use oona_core::alert::State;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;
use crate::alerts::Severity;

fn notice() -> Notice {
    let alert = AlertStatus {
        name: "drops".into(),
        subject: None,
        state: State::Firing,
        severity: Severity::Page,
        since_ms: Some(7),
        value: 9.0,
        threshold: 5.0,
        unit: "percent".into(),
        reason: "9 of 100 publishes of the last minute were refused".to_owned(),
        advice: "slow down".into(),
    };
    Notice::new(Timestamp::from_millis(7), "oona", Change::Fired, &alert)
}

/// A webhook whose address begins with this scheme, and what listens there.
async fn webhook(scheme: &str, stop: &CancellationToken) -> (Webhook, TcpListener, Arc<Board>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let url = WebhookUrl::parse(&format!("{scheme}://{address}/x")).expect("it is an address");
    let board = Arc::new(Board::default());
    let timeout = Duration::from_secs(60);
    let webhook = Webhook::start(url, timeout, &board, stop.clone());
    (webhook.expect("it can send"), listener, board)
}

#[tokio::test]
async fn what_there_is_no_room_for_is_left_out_and_counted_and_nobody_waits() {
    let stop = CancellationToken::new();
    // Whoever listens there never answers.
    let (webhook, _listener, board) = webhook("http", &stop).await;
    for _ in 0..WAITING_MAX + 3 {
        webhook.send(notice());
    }
    assert_eq!(board.notices("left_out"), 3);
    assert_eq!(board.notices("sent"), 0);
    stop.cancel();
    webhook.end().await;
}

#[tokio::test]
async fn https_is_spoken_where_it_is_asked_for() {
    let stop = CancellationToken::new();
    let (webhook, listener, _) = webhook("https", &stop).await;
    webhook.send(notice());
    let (mut stream, _) = listener.accept().await.expect("it connects");
    let mut first = [0; 2];
    stream
        .read_exact(&mut first)
        .await
        .expect("it speaks first");
    assert_eq!(first, [0x16, 0x03], "a handshake of TLS");
    stop.cancel();
    webhook.end().await;
}

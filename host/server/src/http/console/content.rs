//! The content of a message, for people to read.

use std::fmt::{Debug, Write as _};

use oona_core::envelope::message_type;
use oona_core::leyline;
use prost::Message;
use serde::Serialize;

/// How much of a content is shown, in bytes.
const SHOWN_BYTES_MAX: usize = 16 * 1024;

/// How many bytes a line of a dump holds.
const DUMP_LINE_BYTES: usize = 16;

/// See the module.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Content {
    /// As what it was read: the name of a Leyline message, `text`, or `bytes`.
    form: &'static str,
    text: String,
    /// Its size in bytes.
    size: usize,
    /// Whether more of it is there than is shown.
    cut: bool,
}

/// Reads a content as what its type says it is; else as text; else as bytes.
pub(super) fn content(message_type: u32, payload: &[u8]) -> Content {
    let shown = &payload[..payload.len().min(SHOWN_BYTES_MAX)];
    let decoded = decoded(message_type, payload);
    let (form, mut text) = decoded.unwrap_or_else(|| match std::str::from_utf8(payload) {
        Ok(text) => ("text", text.to_owned()),
        Err(_) => ("bytes", dump(shown)),
    });
    let cut = form != "bytes" && text.len() > SHOWN_BYTES_MAX || shown.len() < payload.len();
    if form != "bytes" {
        text.truncate(text.floor_char_boundary(SHOWN_BYTES_MAX));
    }
    Content {
        form,
        text,
        size: payload.len(),
        cut,
    }
}

fn decoded(message_type: u32, payload: &[u8]) -> Option<(&'static str, String)> {
    fn read<T: Message + Default + PartialEq + Debug>(
        name: &'static str,
        payload: &[u8],
    ) -> Option<(&'static str, String)> {
        let message = T::decode(payload).ok()?;
        // What is empty says nothing of what it was meant to be.
        (message != T::default()).then(|| (name, format!("{message:#?}")))
    }
    match message_type {
        message_type::TELEMETRY => read::<leyline::TelemetryPacket>("TelemetryPacket", payload),
        message_type::EMERGENCY_SIGNAL => {
            read::<leyline::EmergencySignal>("EmergencySignal", payload)
        }
        message_type::KERNEL_PREFETCH_REQUEST => {
            read::<leyline::KernelPrefetchRequest>("KernelPrefetchRequest", payload)
        }
        _ => None,
    }
}

/// `00000000  62 6c 75 65 …  blue…`.
fn dump(bytes: &[u8]) -> String {
    let mut dump = String::new();
    for (number, line) in bytes.chunks(DUMP_LINE_BYTES).enumerate() {
        // A string takes whatever is written to it.
        let _ = write!(dump, "{:08x} ", number * DUMP_LINE_BYTES);
        for byte in line {
            let _ = write!(dump, " {byte:02x}");
        }
        let pad = 3 * (DUMP_LINE_BYTES - line.len()) + 2;
        let printable = |byte: &u8| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        };
        let text: String = line.iter().map(printable).collect();
        let _ = writeln!(dump, "{:pad$}{text}", "");
    }
    dump
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_is_read_as_what_it_is() {
        let packet = leyline::TelemetryPacket {
            packet_id: "packet-7".to_owned(),
            ..leyline::TelemetryPacket::default()
        };
        let packet = packet.encode_to_vec();
        let table: [(u32, &[u8], &str, &str); 5] = [
            (
                message_type::TELEMETRY,
                &packet,
                "TelemetryPacket",
                "packet_id: \"packet-7\"",
            ),
            (message_type::TELEMETRY, b"hello", "text", "hello"),
            (0, "é".as_bytes(), "text", "é"),
            (0, b"", "text", ""),
            (
                0,
                &[0xff, b'a'],
                "bytes",
                "00000000  ff 61                                            .a\n",
            ),
        ];
        for (message_type, payload, form, said) in table {
            let content = content(message_type, payload);
            assert_eq!(content.form, form, "{payload:?}");
            assert!(content.text.contains(said), "{}", content.text);
            assert!(!content.cut);
        }
    }

    #[test]
    fn a_long_content_is_cut_and_it_is_said() {
        let text = "é".repeat(SHOWN_BYTES_MAX);
        let shown = content(0, text.as_bytes());
        assert!(shown.cut && shown.text.len() <= SHOWN_BYTES_MAX);
        assert_eq!(shown.size, text.len());
        let bytes = vec![0xff; SHOWN_BYTES_MAX + 1];
        let shown = content(0, &bytes);
        assert!(shown.cut && shown.form == "bytes");
        assert_eq!(
            shown.text.lines().count(),
            SHOWN_BYTES_MAX / DUMP_LINE_BYTES
        );
    }
}

//! W3C trace context, level 1: which trace a message belongs to, and under which span.
//!
//! It travels in the attributes [`TRACEPARENT`] and [`TRACESTATE`] of a message, inside the envelope. What is
//! malformed is passed over and a new trace begins, as the recommendation says
//! (<https://www.w3.org/TR/trace-context/#traceparent-header>).

use std::collections::BTreeMap;
use std::fmt;

use crate::envelope::digest;
use crate::time::Timestamp;

/// The attribute, header and metadata key of the trace and the span above.
pub const TRACEPARENT: &str = "traceparent";
/// The attribute, header and metadata key of what systems on the way have to say to themselves.
pub const TRACESTATE: &str = "tracestate";

/// Takes over what a request says of the trace that it belongs to, unless the message says so itself.
pub fn inherit(
    attributes: &mut BTreeMap<String, String>,
    said: [(&'static str, Option<String>); 2],
) {
    if attributes.contains_key(TRACEPARENT) {
        return;
    }
    for (name, value) in said {
        attributes.extend(value.map(|value| (name.to_owned(), value)));
    }
}

/// Length of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// The flag that says that whoever began the trace records it.
const SAMPLED: u8 = 0x01;

/// A span in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace. Never zero.
    pub trace_id: u128,
    /// The span. Never zero.
    pub span_id: u64,
    /// Whether whoever began the trace records it.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent`; `None` if it is malformed. A version that is not known yet is read as far as
    /// it is like version 00.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let version = hex(text.get(..2)?)?;
        let fits = match version {
            0 => bytes.len() == LENGTH,
            0xff => false,
            _ => bytes.len() == LENGTH || bytes.get(LENGTH) == Some(&b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|&at| bytes.get(at) == Some(&b'-'));
        if !fits || !dashes {
            return None;
        }
        let trace_id = hex(text.get(3..35)?)?;
        let span_id = u64::try_from(hex(text.get(36..52)?)?).ok()?;
        let flags = u8::try_from(hex(text.get(53..55)?)?).ok()?;
        (trace_id != 0 && span_id != 0).then_some(Self {
            trace_id,
            span_id,
            sampled: flags & SAMPLED != 0,
        })
    }

    /// A new trace for an event. Its id follows from the event's, and from when it is published: the same id may
    /// be given to another event later.
    #[must_use]
    pub fn begin(event_id: &str, now: Timestamp) -> Self {
        let hash = |salt: &str| digest(salt, &[event_id], now.as_millis());
        let trace_id = u128::from(hash("trace")) << 64 | u128::from(hash("event"));
        Self {
            trace_id: trace_id.max(1),
            span_id: hash("root").max(1),
            sampled: true,
        }
    }

    /// A span of the same trace, whose id follows from what it is of.
    #[must_use]
    pub fn child(&self, what: &str, names: &[&str], number: u64) -> Self {
        let number = number ^ self.span_id ^ self.trace_id as u64;
        Self {
            span_id: digest(what, names, number).max(1),
            ..*self
        }
    }

    /// The trace, as 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id_hex(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

/// As a `traceparent` of version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = if self.sampled { SAMPLED } else { 0 };
        write!(
            f,
            "00-{:032x}-{:016x}-{flags:02x}",
            self.trace_id, self.span_id
        )
    }
}

/// A number in lower-case hexadecimal digits and nothing else.
fn hex(text: &str) -> Option<u128> {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let all = text.bytes().all(digit);
    all.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

    #[test]
    fn a_context_is_read_as_it_is_written() {
        for sampled in [false, true] {
            let context = TraceContext {
                trace_id: TRACE,
                span_id: SPAN,
                sampled,
            };
            let text = context.to_string();
            assert_eq!(text.len(), LENGTH);
            assert_eq!(TraceContext::parse(&text), Some(context));
        }
    }

    #[test]
    fn ids_follow_from_what_they_are_of() {
        let at = Timestamp::from_millis;
        let trace = TraceContext::begin("a", at(1));
        assert_eq!(trace, TraceContext::begin("a", at(1)));
        let traces = [("a", 2), ("b", 1)].map(|(id, ms)| TraceContext::begin(id, at(ms)).trace_id);
        assert!(!traces.contains(&trace.trace_id));
        let children = [
            ("deliver", ["x", "y"], 1),
            ("process", ["x", "y"], 1),
            ("deliver", ["xy", ""], 1),
            ("deliver", ["x", "y"], 2),
        ];
        let mut ids = children.map(|(what, names, number)| {
            let child = trace.child(what, &names, number);
            assert_eq!(child, trace.child(what, &names, number));
            assert_eq!((child.trace_id, child.sampled), (trace.trace_id, true));
            child.span_id
        });
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
    }

    #[test]
    fn what_is_malformed_is_no_context() {
        let table = [
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                true,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
                true,
            ),
            (
                "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                true,
            ),
            (
                "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
                true,
            ),
            (
                "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
                false,
            ),
            (
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                false,
            ),
            (
                "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-é4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
                false,
            ),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736", false),
            ("é", false),
            ("", false),
        ];
        for (text, good) in table {
            assert_eq!(TraceContext::parse(text).is_some(), good, "{text}");
        }
    }
}

//! How policies read the text of a batch.

use std::sync::Arc;

use oona_core::envelope::Message;
use oona_core::policy::Lookup;

/// The attribute `name` of `message`, the bus's own included.
fn attribute<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    let own = match name {
        "oona.id" => &message.id,
        "oona.source" => &message.source,
        "oona.key" => &message.key,
        _ => return message.attributes.get(name).map(String::as_str),
    };
    (!own.is_empty()).then_some(own)
}

/// Messages of a batch.
#[derive(Debug)]
pub(super) struct Texts<M>(pub(super) Vec<M>);

impl<M: AsRef<Message> + Send + Sync + std::fmt::Debug> Lookup for Texts<M> {
    fn attribute(&self, index: usize, name: &str) -> Option<&str> {
        attribute(self.0.get(index)?.as_ref(), name)
    }

    fn attributes(&self, index: usize, each: &mut dyn FnMut(&str, &str)) {
        let message = self.0.get(index).map(AsRef::as_ref);
        let attributes = message.into_iter().flat_map(|message| &message.attributes);
        attributes.for_each(|(name, value)| each(name, value));
    }

    fn payload(&self, index: usize) -> Option<&[u8]> {
        self.0
            .get(index)
            .map(|message| message.as_ref().payload.as_ref())
    }
}

/// Messages of a batch in which some entries are no message: those have no text.
#[derive(Debug)]
pub(super) struct TextsOfSome(pub(super) Vec<Option<Arc<Message>>>);

impl TextsOfSome {
    fn get(&self, index: usize) -> Option<&Message> {
        self.0.get(index)?.as_deref()
    }
}

impl Lookup for TextsOfSome {
    fn attribute(&self, index: usize, name: &str) -> Option<&str> {
        attribute(self.get(index)?, name)
    }

    fn attributes(&self, index: usize, each: &mut dyn FnMut(&str, &str)) {
        let attributes = self.get(index).into_iter().flat_map(|it| &it.attributes);
        attributes.for_each(|(name, value)| each(name, value));
    }

    fn payload(&self, index: usize) -> Option<&[u8]> {
        self.get(index).map(|message| message.payload.as_ref())
    }
}

/// Some messages of another batch.
#[derive(Debug)]
pub(super) struct Subset {
    pub(super) all: Arc<dyn Lookup>,
    pub(super) indices: Vec<usize>,
}

impl Lookup for Subset {
    fn attribute(&self, index: usize, name: &str) -> Option<&str> {
        self.all.attribute(*self.indices.get(index)?, name)
    }

    fn attributes(&self, index: usize, each: &mut dyn FnMut(&str, &str)) {
        if let Some(&index) = self.indices.get(index) {
            self.all.attributes(index, each);
        }
    }

    fn payload(&self, index: usize) -> Option<&[u8]> {
        self.all.payload(*self.indices.get(index)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_no_message_takes_no_text_from_the_others() {
        let message = Message {
            attributes: [("tenant".to_owned(), "a".to_owned())].into(),
            payload: "text".into(),
            ..Message::default()
        };
        let texts = TextsOfSome(vec![None, Some(Arc::new(message))]);
        assert_eq!(texts.attribute(0, "tenant"), None);
        assert_eq!(texts.payload(0), None);
        assert_eq!(texts.attribute(1, "tenant"), Some("a"));
        assert_eq!(texts.payload(1), Some(&b"text"[..]));
        let mut seen = Vec::new();
        for index in 0..3 {
            texts.attributes(index, &mut |name, _| seen.push((index, name.to_owned())));
        }
        assert_eq!(seen, [(1, "tenant".to_owned())]);
    }
}

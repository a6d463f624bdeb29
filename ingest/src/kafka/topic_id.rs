//! A topic's id, as the client library comes to know it.
//!
//! Kafka gives every topic an id of its own, and brokers tell it with the metadata. The library
//! fetches by it, but its safe interface has no call that returns it; it logs each id that it
//! learns, before it sends a request that names it. That line is read here. The library is built
//! in with its version fixed, and tests on a real broker fail where the line changes; without it,
//! as with brokers that know no ids, a topic is told by its records alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Returns the id of a topic where a line of the library's log tells it.
pub(super) fn told(topic: &str, facility: &str, line: &str) -> Option<[u8; 16]> {
    if facility != "METADATA" {
        return None;
    }
    let (_, rest) = line.split_once(": Topic ")?;
    let (_, id) =
        rest.strip_prefix(topic)?.strip_prefix(" changed id from ")?.split_once(" to ")?;
    let id: [u8; 16] = STANDARD_NO_PAD.decode(id.trim()).ok()?.try_into().ok()?;
    // Brokers that know no ids say zero.
    (id != [0; 16]).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::told;

    const LINE: &str = "[thrd:main]: Topic orders changed id from AAAAAAAAAAAAAAAAAAAAAA to \
                        AQIDBAUGBwgJCgsMDQ4PEA";

    #[test]
    fn the_line_that_tells_an_id_is_read() {
        let id = told("orders", "METADATA", LINE);
        assert_eq!(id, Some([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]));
    }

    #[test]
    fn other_lines_and_topics_tell_nothing() {
        assert_eq!(told("order", "METADATA", LINE), None);
        assert_eq!(told("orders", "TOPIC", LINE), None);
        let zero = LINE.replace("AQIDBAUGBwgJCgsMDQ4PEA", "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(told("orders", "METADATA", &zero), None);
        assert_eq!(told("orders", "METADATA", "[thrd:main]: Topic orders [0] Leader 1"), None);
    }
}

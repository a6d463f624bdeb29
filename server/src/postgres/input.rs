//! Messages from a client: read within bounds, taken apart without trusting any count in them.
//!
//! The decoder of `pgwire` reads past the end of a message that lies about its counts, so only its
//! other half, the messages to the client, is used.

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::code::Code;
use crate::failure::{Answered, Failure};

/// The request for TLS in place of a protocol version.
pub const SSL_REQUEST: u32 = 80_877_103;
/// The request for GSS encryption in place of a protocol version.
pub const GSS_REQUEST: u32 = 80_877_104;
/// The request to cancel another connection's statement.
pub const CANCEL_REQUEST: u32 = 80_877_102;

/// Bytes of a startup message at most.
const STARTUP_BYTES_MAX: usize = 10_000;
/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;

/// What Describe and Close name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Statement,
    Portal,
}

/// A message after startup.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    Query(String),
    Parse { name: String, sql: String, types: Vec<u32> },
    Bind(Bind),
    Describe { target: Target, name: String },
    Execute { portal: String, rows_max: u32 },
    Close { target: Target, name: String },
    Sync,
    Flush,
    CopyData(Bytes),
    CopyDone,
    CopyFail(String),
    Terminate,
}

/// Values for a statement's parameters.
#[derive(Debug, PartialEq, Eq)]
pub struct Bind {
    pub portal: String,
    pub statement: String,
    /// One for each value, one for all, or none for text: 0 is text, 1 is binary.
    pub formats: Vec<u16>,
    pub values: Vec<Option<Bytes>>,
    /// The same for the columns of the answer.
    pub results: Vec<u16>,
}

/// What begins a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Startup {
    /// Names and values, and the minor version asked for.
    Begin {
        minor: u16,
        options: Vec<(String, String)>,
    },
    Ssl,
    Gss,
    Cancel {
        process: u32,
        secret: Bytes,
    },
}

/// Builds the failure of a message that is not of the protocol.
pub fn violation(detail: impl Into<String>) -> Failure {
    Failure { sqlstate: "08P01".into(), ..Failure::new(Code::InvalidRequest, detail) }
}

/// Reads messages off a connection.
#[derive(Debug)]
pub struct Input<R> {
    from: R,
    buffer: BytesMut,
    message_bytes_max: usize,
}

impl<R: AsyncRead + Unpin> Input<R> {
    /// Reads messages of `message_bytes_max` bytes at most.
    pub fn new(from: R, message_bytes_max: usize) -> Self {
        Self { from, buffer: BytesMut::new(), message_bytes_max }
    }

    /// Returns what is read from.
    pub const fn source(&self) -> &R {
        &self.from
    }

    /// True where bytes of a next message are there already.
    pub fn has_more(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Reads the message that begins a connection; nothing where it ends.
    ///
    /// # Errors
    /// 08P01 for what is none.
    pub async fn startup(&mut self) -> Answered<Option<Startup>> {
        if !self.fill(4).await {
            return Ok(None);
        }
        let bytes = length_in(&self.buffer)?;
        if !(8..=STARTUP_BYTES_MAX).contains(&bytes) {
            return Err(violation("the startup message is of an impossible length"));
        }
        if !self.fill(bytes).await {
            return Ok(None);
        }
        let mut fields = Fields(self.buffer.split_to(bytes).freeze());
        fields.0.advance(4);
        let version = fields.int32()?;
        Ok(Some(match version {
            SSL_REQUEST => Startup::Ssl,
            GSS_REQUEST => Startup::Gss,
            CANCEL_REQUEST => Startup::Cancel { process: fields.int32()?, secret: fields.0 },
            version if version >> 16 == 3 => {
                let mut options = Vec::new();
                loop {
                    let name = fields.text()?;
                    if name.is_empty() {
                        break;
                    }
                    options.push((name, fields.text()?));
                }
                Startup::Begin { minor: u16::try_from(version & 0xffff).unwrap_or(0), options }
            }
            _ => return Err(violation("only version 3 of the protocol is spoken")),
        }))
    }

    /// Reads the next message; nothing where the connection ends.
    ///
    /// # Errors
    /// 08P01 for what is none, 54000 for one that is too long. The connection has no use after
    /// either.
    pub async fn message(&mut self) -> Answered<Option<Message>> {
        if !self.fill(5).await {
            return Ok(None);
        }
        let bytes = length_in(&self.buffer[1..])?;
        if bytes < 4 {
            return Err(violation("a message is of an impossible length"));
        }
        if bytes > self.message_bytes_max {
            let most = self.message_bytes_max;
            let detail = format!("a message has {bytes} bytes, at most {most} are taken");
            return Err(Failure::new(Code::OverLimit, detail));
        }
        if !self.fill(bytes + 1).await {
            return Ok(None);
        }
        let mut message = self.buffer.split_to(bytes + 1).freeze();
        let kind = message.get_u8();
        message.advance(4);
        decode(kind, Fields(message)).map(Some)
    }

    /// Reads until so many bytes are there; false where the connection ends before.
    async fn fill(&mut self, bytes: usize) -> bool {
        while self.buffer.len() < bytes {
            // Grows with what has come, not with what a length promises.
            self.buffer.reserve(READ_BYTES);
            match self.from.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return false,
                Ok(_) => {}
            }
        }
        true
    }
}

fn length_in(bytes: &[u8]) -> Answered<usize> {
    let wrong = || violation("a message is of an impossible length");
    let length: [u8; 4] = bytes.get(..4).and_then(|four| four.try_into().ok()).ok_or_else(wrong)?;
    usize::try_from(i32::from_be_bytes(length)).map_err(|_| wrong())
}

fn decode(kind: u8, mut fields: Fields) -> Answered<Message> {
    Ok(match kind {
        b'Q' => Message::Query(fields.text()?),
        b'P' => {
            let (name, sql) = (fields.text()?, fields.text()?);
            let types = fields.many(Fields::int32)?;
            Message::Parse { name, sql, types }
        }
        b'B' => Message::Bind(Bind {
            portal: fields.text()?,
            statement: fields.text()?,
            formats: fields.many(Fields::int16)?,
            values: fields.many(Fields::value)?,
            results: fields.many(Fields::int16)?,
        }),
        b'D' => Message::Describe { target: fields.target()?, name: fields.text()? },
        b'E' => Message::Execute { portal: fields.text()?, rows_max: fields.int32()? },
        b'C' => Message::Close { target: fields.target()?, name: fields.text()? },
        b'S' => Message::Sync,
        b'H' => Message::Flush,
        b'd' => Message::CopyData(fields.0),
        b'c' => Message::CopyDone,
        b'f' => Message::CopyFail(fields.text()?),
        b'X' => Message::Terminate,
        b'F' => return Err(violation("function calls are not supported")),
        b'p' => return Err(violation("no password was asked for")),
        other => return Err(violation(format!("messages of type {other} are not known"))),
    })
}

/// What is left of a message.
struct Fields(Bytes);

impl Fields {
    fn need(&self, bytes: usize) -> Answered<()> {
        match self.0.remaining() < bytes {
            true => Err(violation("a message is shorter than it says")),
            false => Ok(()),
        }
    }

    fn int16(&mut self) -> Answered<u16> {
        self.need(2)?;
        Ok(self.0.get_u16())
    }

    fn int32(&mut self) -> Answered<u32> {
        self.need(4)?;
        Ok(self.0.get_u32())
    }

    /// Reads a text that ends with a zero byte.
    fn text(&mut self) -> Answered<String> {
        let end = self.0.iter().position(|byte| *byte == 0);
        let end = end.ok_or_else(|| violation("a text in a message has no end"))?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        match std::str::from_utf8(&text) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(not_utf8()),
        }
    }

    fn value(&mut self) -> Answered<Option<Bytes>> {
        let length = self.int32()?;
        // -1 is NULL.
        if length == u32::MAX {
            return Ok(None);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.need(length)?;
        Ok(Some(self.0.split_to(length)))
    }

    fn target(&mut self) -> Answered<Target> {
        self.need(1)?;
        match self.0.get_u8() {
            b'S' => Ok(Target::Statement),
            b'P' => Ok(Target::Portal),
            _ => Err(violation("neither a statement nor a portal is named")),
        }
    }

    fn many<T>(&mut self, one: impl Fn(&mut Self) -> Answered<T>) -> Answered<Vec<T>> {
        let count = self.int16()?;
        // Every element takes two bytes at least: no room is made for what cannot be there.
        self.need(usize::from(count) * 2)?;
        (0..count).map(|_| one(self)).collect()
    }
}

/// Builds the failure of a text that is not UTF-8.
pub fn not_utf8() -> Failure {
    Failure {
        sqlstate: "22021".into(),
        ..Failure::new(Code::InvalidValue, "a text is not UTF-8")
            .with_hint("use client_encoding UTF8")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Answered<Option<Message>> {
        Input::new(bytes, 1_000).message().await
    }

    fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = i32::try_from(body.len() + 4).unwrap();
        [&[kind], length.to_be_bytes().as_slice(), body].concat()
    }

    #[tokio::test]
    async fn messages_come_apart() {
        let query = framed(b'Q', b"SELECT 1\0");
        assert_eq!(read(&query).await, Ok(Some(Message::Query("SELECT 1".to_owned()))));
        let parse = framed(b'P', b"s\0SELECT $1\0\0\x01\0\0\0\x17");
        let expected =
            Message::Parse { name: "s".to_owned(), sql: "SELECT $1".to_owned(), types: vec![23] };
        assert_eq!(read(&parse).await, Ok(Some(expected)));
        let bind = framed(b'B', b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\0");
        let expected = Message::Bind(Bind {
            portal: "p".to_owned(),
            statement: "s".to_owned(),
            formats: vec![1],
            values: vec![Some(Bytes::from_static(b"ab")), None],
            results: vec![],
        });
        assert_eq!(read(&bind).await, Ok(Some(expected)));
        assert_eq!(read(b"").await, Ok(None));
        assert_eq!(read(&query[..6]).await, Ok(None));
    }

    #[tokio::test]
    async fn no_message_is_trusted_about_its_own_length() {
        for wrong in [
            framed(b'P', b"s\0SELECT 1\0\xff\xff"),
            framed(b'B', b"p\0s\0\0\0\0\x01\0\0\0\x09ab\0\0"),
            framed(b'B', b"p\0s\0\xff\xff"),
            framed(b'E', b"p\0\0"),
            framed(b'Q', b"no end"),
            framed(b'D', b""),
            framed(b'!', b""),
            vec![b'Q', 0, 0, 0, 1],
            vec![b'Q', 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(read(&wrong).await.unwrap_err().sqlstate, "08P01", "{wrong:?}");
        }
        let long = read(&[b'Q', 0x7f, 0xff, 0xff, 0xff]).await.unwrap_err();
        assert_eq!(long.sqlstate, "54000");
    }

    #[tokio::test]
    async fn a_startup_has_options() {
        let body = b"\0\x03\0\0user\0ada\0database\0t\0\0";
        let length = i32::try_from(body.len() + 4).unwrap().to_be_bytes();
        let bytes = [length.as_slice(), body].concat();
        let startup = Input::new(bytes.as_slice(), 1_000).startup().await.unwrap().unwrap();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let options = vec![pair("user", "ada"), pair("database", "t")];
        assert_eq!(startup, Startup::Begin { minor: 0, options });
        assert!(Input::new(&[0xff_u8; 20][..], 1_000).startup().await.is_err());
    }

    /// Runs what reads of bytes that are all there, which never waits.
    fn at_once<T>(reading: impl Future<Output = T>) -> T {
        use futures::FutureExt as _;
        reading.now_or_never().unwrap()
    }

    #[test]
    fn fuzzed_messages_come_apart_or_are_refused() {
        let bind = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\x01\0\x01";
        let messages = [
            framed(b'Q', b"SELECT 1\0"),
            framed(b'P', b"s\0SELECT $1\0\0\x02\0\0\0\x17\0\0\0\0"),
            framed(b'B', bind),
            framed(b'D', b"Ss\0"),
            framed(b'E', b"p\0\0\0\0\x05"),
            framed(b'C', b"Pp\0"),
            framed(b'd', b"a\tb\n"),
            framed(b'f', b"why\0"),
            framed(b'S', b""),
        ];
        let two = [messages[1].clone(), messages[2].clone()].concat();
        let corpus = messages.into_iter().chain([two]);
        everwhen_fuzz::Fuzz::bytes("messages", corpus).run(|bytes| {
            let mut input = Input::new(bytes, 1_000);
            let mut accepted = false;
            while let Ok(Some(_)) = at_once(input.message()) {
                accepted = true;
            }
            accepted
        });
    }

    #[test]
    fn fuzzed_startups_are_read_or_refused() {
        let framed = |body: &[u8]| {
            let length = i32::try_from(body.len() + 4).unwrap().to_be_bytes();
            [length.as_slice(), body].concat()
        };
        let startups = [
            framed(b"\0\x03\0\0user\0ada\0database\0t\0options\0-c a=b --c=d\0\0"),
            framed(b"\0\x03\0\x02_pq_.x\0y\0replication\0true\0\0"),
            framed(&SSL_REQUEST.to_be_bytes()),
            framed(&[&CANCEL_REQUEST.to_be_bytes()[..], &[0, 0, 0, 1, 0, 0, 0, 2]].concat()),
        ];
        everwhen_fuzz::Fuzz::bytes("startups", startups)
            .run(|bytes| matches!(at_once(Input::new(bytes, 1_000).startup()), Ok(Some(_))));
    }
}

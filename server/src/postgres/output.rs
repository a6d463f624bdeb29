//! Messages to a client: gathered in a buffer, sent when it is full or the client must have them.

use bytes::{BufMut as _, BytesMut};
use pgwire::messages::PgWireBackendMessage as Message;
use pgwire::messages::copy::{CopyDone, CopyInResponse, CopyOutResponse};
use pgwire::messages::data::{FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{
    BindComplete, CloseComplete, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, ReadyForQuery,
    TransactionStatus,
};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey,
};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::types::size_of;
use super::values::Column;
use crate::failure::{Answered, Failure};

/// Bytes that are gathered before they are sent.
const GATHERED_BYTES: usize = 64 << 10;

/// Where messages to a client go.
#[derive(Debug)]
pub struct Output<W> {
    to: W,
    buffer: BytesMut,
}

/// The connection takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl<W: AsyncWrite + Unpin> Output<W> {
    /// Sends to a connection.
    pub fn new(to: W) -> Self {
        Self { to, buffer: BytesMut::new() }
    }

    /// Sends what was gathered.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn flush(&mut self) -> Result<(), Gone> {
        let sent = self.to.write_all(&self.buffer).await;
        self.buffer.clear();
        match sent {
            Ok(()) => self.to.flush().await.map_err(|_| Gone),
            Err(_) => Err(Gone),
        }
    }

    /// Sends what was gathered where it is much.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn relieve(&mut self) -> Result<(), Gone> {
        if self.buffer.len() < GATHERED_BYTES {
            return Ok(());
        }
        self.flush().await
    }

    /// Ends the connection.
    pub async fn close(&mut self) {
        // The client may have gone already.
        let _ = self.flush().await;
        let _ = self.to.shutdown().await;
    }

    /// Refuses TLS or GSS encryption.
    pub fn no_encryption(&mut self) {
        self.buffer.put_u8(b'N');
    }

    fn put(&mut self, message: Message) {
        if let Err(error) = message.encode(&mut self.buffer) {
            tracing::error!(%error, "a message to a client was not written");
        }
    }

    /// Tells that nobody has to prove who they are, and how to cancel.
    pub fn welcome(&mut self, parameters: &[(&str, String)], process: u32, secret: u32) {
        self.put(Message::Authentication(Authentication::Ok));
        for (name, value) in parameters {
            self.parameter(name, value);
        }
        let secret = SecretKey::I32(secret.cast_signed());
        self.put(Message::BackendKeyData(BackendKeyData::new(process.cast_signed(), secret)));
    }

    /// Says that 3.0 is spoken, and which options were not understood.
    pub fn negotiate(&mut self, unknown: Vec<String>) {
        self.put(Message::NegotiateProtocolVersion(NegotiateProtocolVersion::new(0, unknown)));
    }

    /// Tells the value of a setting.
    pub fn parameter(&mut self, name: &str, value: &str) {
        let status = ParameterStatus::new(name.to_owned(), value.to_owned());
        self.put(Message::ParameterStatus(status));
    }

    /// Says that the next statement may come.
    pub fn ready(&mut self, status: TransactionStatus) {
        self.put(Message::ReadyForQuery(ReadyForQuery::new(status)));
    }

    /// Ends a statement.
    pub fn complete(&mut self, tag: &str) {
        self.put(Message::CommandComplete(CommandComplete::new(tag.to_owned())));
    }

    /// Answers a statement of nothing.
    pub fn empty(&mut self) {
        self.put(Message::EmptyQueryResponse(EmptyQueryResponse::new()));
    }

    /// Ends a Parse.
    pub fn parsed(&mut self) {
        self.put(Message::ParseComplete(ParseComplete::new()));
    }

    /// Ends a Bind.
    pub fn bound(&mut self) {
        self.put(Message::BindComplete(BindComplete::new()));
    }

    /// Ends a Close.
    pub fn closed(&mut self) {
        self.put(Message::CloseComplete(CloseComplete::new()));
    }

    /// Says that a portal has more rows.
    pub fn suspended(&mut self) {
        self.put(Message::PortalSuspended(PortalSuspended::new()));
    }

    /// Describes a statement's parameters.
    pub fn parameters(&mut self, types: Vec<u32>) {
        self.put(Message::ParameterDescription(ParameterDescription::new(types)));
    }

    /// Describes an answer's columns; nothing where it has none.
    pub fn columns(&mut self, columns: Option<&[Column]>) {
        let Some(columns) = columns else {
            return self.put(Message::NoData(NoData::new()));
        };
        let field = |column: &Column| {
            let (size, format) = (size_of(column.oid), i16::from(column.binary));
            FieldDescription::new(column.name.clone(), 0, 0, column.oid, size, -1, format)
        };
        let fields = columns.iter().map(field).collect();
        self.put(Message::RowDescription(RowDescription::new(fields)));
    }

    /// Writes a row, whose values `write` puts.
    ///
    /// # Errors
    /// Whatever `write` reports; nothing of the row is sent then.
    pub fn row(
        &mut self,
        columns: usize,
        write: impl FnOnce(&mut BytesMut) -> Answered<()>,
    ) -> Answered<()> {
        let columns = u16::try_from(columns).map_err(|error| Failure::internal(&error))?;
        self.framed(b'D', |out| {
            out.put_u16(columns);
            write(out)
        })
    }

    /// Writes a piece of a COPY.
    ///
    /// # Errors
    /// Whatever `write` reports; nothing is sent then.
    pub fn copy_data(&mut self, write: impl FnOnce(&mut BytesMut) -> Answered<()>) -> Answered<()> {
        self.framed(b'd', write)
    }

    fn framed(
        &mut self,
        kind: u8,
        write: impl FnOnce(&mut BytesMut) -> Answered<()>,
    ) -> Answered<()> {
        let at = self.buffer.len();
        self.buffer.put_u8(kind);
        self.buffer.put_i32(0);
        if let Err(failure) = write(&mut self.buffer) {
            self.buffer.truncate(at);
            return Err(failure);
        }
        let length = i32::try_from(self.buffer.len() - at - 1);
        let length = length.map_err(|error| Failure::internal(&error))?;
        self.buffer[at + 1..at + 5].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Asks for the rows of a COPY.
    pub fn copy_in(&mut self, columns: usize) {
        let count = i16::try_from(columns).unwrap_or(i16::MAX);
        let formats = vec![0; columns];
        self.put(Message::CopyInResponse(CopyInResponse::new(0, count, formats)));
    }

    /// Announces the rows of a COPY.
    pub fn copy_out(&mut self, columns: usize) {
        let count = i16::try_from(columns).unwrap_or(i16::MAX);
        let formats = vec![0; columns];
        self.put(Message::CopyOutResponse(CopyOutResponse::new(0, count, formats)));
    }

    /// Ends the rows of a COPY.
    pub fn copy_done(&mut self) {
        self.put(Message::CopyDone(CopyDone::new()));
    }

    /// Tells a failure; `offset` characters of the query stand before the statement.
    pub fn failure(&mut self, failure: &Failure, severity: &str, offset: usize) {
        let mut fields = vec![
            (b'S', severity.to_owned()),
            (b'V', severity.to_owned()),
            (b'C', failure.sqlstate.to_string()),
            (b'M', failure.detail.clone()),
        ];
        if let Some(position) = failure.position {
            fields.push((b'P', (position + offset).to_string()));
        }
        if let Some(hint) = &failure.hint {
            fields.push((b'H', hint.clone()));
        }
        self.put(Message::ErrorResponse(ErrorResponse::new(fields)));
    }

    /// Tells something that is worth knowing.
    pub fn warning(&mut self, sqlstate: &str, text: &str) {
        let fields = [(b'S', "WARNING"), (b'V', "WARNING"), (b'C', sqlstate), (b'M', text)];
        let fields = fields.map(|(field, value)| (field, value.to_owned())).to_vec();
        self.put(Message::NoticeResponse(NoticeResponse::new(fields)));
    }
}

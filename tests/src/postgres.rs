//! A connection of the Postgres wire that reads and writes messages as they are.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection to a server.
pub struct Wire(TcpStream);

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    /// The type's number in Postgres' catalog.
    pub oid: u32,
}

/// A table of texts: the answer to one statement; `None` is NULL.
#[derive(Debug, Clone, Default)]
pub struct Table {
    pub fields: Vec<Field>,
    pub rows: Vec<Vec<Option<String>>>,
}

/// What a server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub state: String,
    pub message: String,
}

impl Wire {
    /// Connects and says who it is; the error is the server's.
    pub async fn open(address: &str, user: &str, database: Option<&str>) -> Result<Self, Refusal> {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut wire = Self(stream);
        let database = database.map(|name| format!("database\0{name}\0")).unwrap_or_default();
        wire.send_startup(format!("\0\x03\0\0user\0{user}\0{database}\0").as_bytes()).await;
        loop {
            match wire.message().await.expect("the connection has ended") {
                (b'E', body) => return Err(refusal(&body)),
                (b'Z', _) => return Ok(wire),
                _ => {}
            }
        }
    }

    /// Sends bytes that need not be a message.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn send_startup(&mut self, body: &[u8]) {
        let length = i32::try_from(body.len() + 4).unwrap().to_be_bytes();
        self.send_raw(&[length.as_slice(), body].concat()).await;
    }

    /// Sends a message of a kind.
    pub async fn send(&mut self, kind: u8, body: &[u8]) {
        let length = i32::try_from(body.len() + 4).unwrap().to_be_bytes();
        self.send_raw(&[&[kind], length.as_slice(), body].concat()).await;
    }

    /// Returns the next message; nothing where the connection has ended.
    pub async fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        let kind = self.0.read_u8().await.ok()?;
        let length = usize::try_from(self.0.read_i32().await.ok()?).unwrap();
        let mut body = vec![0; length - 4];
        self.0.read_exact(&mut body).await.ok()?;
        Some((kind, body))
    }

    /// Returns the kinds of the messages up to one, and the last body.
    pub async fn until(&mut self, last: u8) -> (String, Vec<u8>) {
        let mut kinds = String::new();
        loop {
            let (kind, body) = self.message().await.expect("the connection has ended");
            kinds.push(char::from(kind));
            if kind == last {
                return (kinds, body);
            }
        }
    }

    /// Runs a text as one message of the simple protocol; returns the tables it answered, in order,
    /// and whether the session stands outside of a transaction after it.
    pub async fn query(&mut self, sql: &str) -> (Result<Vec<Table>, Refusal>, bool) {
        self.send(b'Q', format!("{sql}\0").as_bytes()).await;
        let mut answer: Result<Vec<Table>, Refusal> = Ok(Vec::new());
        loop {
            let (kind, body) = self.message().await.expect("the connection has ended");
            match (kind, &mut answer) {
                (b'T', Ok(tables)) => {
                    tables.push(Table { fields: fields(&body), rows: Vec::new() });
                }
                (b'D', Ok(tables)) => tables.last_mut().unwrap().rows.push(row(&body)),
                (b'E', _) => answer = Err(refusal(&body)),
                (b'Z', _) => return (answer, body == b"I"),
                _ => {}
            }
        }
    }

    /// Copies rows in the text form of COPY into a table, as one transaction.
    pub async fn copy_in(&mut self, statement: &str, rows: &str) -> Result<(), Refusal> {
        self.send(b'Q', format!("{statement}\0").as_bytes()).await;
        let mut answer = Ok(());
        loop {
            let (kind, body) = self.message().await.expect("the connection has ended");
            match kind {
                b'G' => {
                    for part in rows.as_bytes().chunks(1 << 16) {
                        self.send(b'd', part).await;
                    }
                    self.send(b'c', b"").await;
                }
                b'E' => answer = Err(refusal(&body)),
                b'Z' => return answer,
                _ => {}
            }
        }
    }
}

/// Reads what a server refused.
fn refusal(error: &[u8]) -> Refusal {
    let field = |kind: u8| {
        let fields = error.split(|byte| *byte == 0);
        let found = fields.into_iter().find(|field| field.first() == Some(&kind)).unwrap();
        String::from_utf8_lossy(&found[1..]).into_owned()
    };
    Refusal { state: field(b'C'), message: field(b'M') }
}

/// Returns the SQLSTATE of an error message's body.
pub fn sqlstate(error: &[u8]) -> String {
    refusal(error).state
}

/// Takes so many bytes off the front.
fn take<'a>(body: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (front, rest) = body.split_at(count);
    *body = rest;
    front
}

fn fields(mut body: &[u8]) -> Vec<Field> {
    let count = u16::from_be_bytes(take(&mut body, 2).try_into().unwrap());
    let field = |_| {
        let end = body.iter().position(|byte| *byte == 0).unwrap();
        let name = String::from_utf8_lossy(take(&mut body, end)).into_owned();
        // A zero, table and column; the type; its length, modifier and format.
        take(&mut body, 7);
        let oid = u32::from_be_bytes(take(&mut body, 4).try_into().unwrap());
        take(&mut body, 8);
        Field { name, oid }
    };
    (0..count).map(field).collect()
}

fn row(mut body: &[u8]) -> Vec<Option<String>> {
    let count = u16::from_be_bytes(take(&mut body, 2).try_into().unwrap());
    let cell = |_| {
        let length = i32::from_be_bytes(take(&mut body, 4).try_into().unwrap());
        let length = usize::try_from(length).ok()?;
        Some(String::from_utf8_lossy(take(&mut body, length)).into_owned())
    };
    (0..count).map(cell).collect()
}

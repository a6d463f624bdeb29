//! Compression of bodies, both ways: gzip and zstd, as the headers ask.

use std::io::{Read as _, Write as _};

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use flate2::write::GzEncoder;
use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::body::too_large;
use crate::code::Code;
use crate::failure::{Answered, Failure};

/// Bodies below this size leave as they are.
const BYTES_MIN: u64 = 1 << 10;
/// Bytes that are compressed at a time, so that no thread is held for long.
const CHUNK_BYTES: usize = 32 << 10;
/// The largest window of a zstd body that is taken: 8 MiB (RFC 9659).
const WINDOW_LOG_MAX: u32 = 23;

/// A way to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    Zstd,
}

impl Coding {
    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Returns how a request's body is compressed; nothing where it is not.
    ///
    /// # Errors
    /// `unsupported_encoding` for another way.
    pub fn of_request(headers: &HeaderMap) -> Answered<Option<Self>> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(None) };
        let name = value.to_str().unwrap_or_default().trim();
        if name.is_empty() || name.eq_ignore_ascii_case("identity") {
            return Ok(None);
        }
        Self::named(name).map(Some).ok_or_else(|| {
            let detail = "the request's body is compressed in a way that is not taken";
            Failure::new(Code::UnsupportedEncoding, detail).with_hint("taken are: gzip, zstd")
        })
    }

    /// Returns the way an answer is best compressed for the client; nothing where not at all.
    fn accepted(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(header::ACCEPT_ENCODING).iter();
        let parts = values.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
        let weighted = parts.filter_map(|part| {
            let mut part = part.split(';').map(str::trim);
            let coding = Self::named(part.next()?)?;
            let weight = part.find_map(|more| more.strip_prefix("q="));
            Some((weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0_f32)), coding))
        });
        let mut best: Option<(f32, Self)> = None;
        for (weight, coding) in weighted.filter(|(weight, _)| *weight > 0.0) {
            let better = best.is_none_or(|(most, other)| {
                weight > most || (weight >= most && coding == Self::Zstd && other == Self::Gzip)
            });
            if better {
                best = Some((weight, coding));
            }
        }
        best.map(|(_, coding)| coding)
    }

    /// Decompresses a body of at most `bytes_max` bytes. Blocking.
    ///
    /// # Errors
    /// `body_too_large`, and `invalid_request` where it is not compressed like that.
    pub fn decompress(self, bytes: &[u8], bytes_max: usize) -> Answered<Vec<u8>> {
        let room = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        let mut plain = Vec::new();
        let done = match self {
            Self::Gzip => {
                flate2::read::MultiGzDecoder::new(bytes).take(room).read_to_end(&mut plain)
            }
            Self::Zstd => zstd::stream::read::Decoder::new(bytes).and_then(|mut decoder| {
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                decoder.take(room).read_to_end(&mut plain)
            }),
        };
        if done.is_err() {
            let detail = format!("the request's body is no {}", self.name());
            return Err(Failure::request(detail));
        }
        if plain.len() > bytes_max { Err(too_large(bytes_max)) } else { Ok(plain) }
    }
}

/// Compresses answers for clients that accept it.
pub async fn compress(request: Request, next: Next) -> Response {
    let coding = Coding::accepted(request.headers());
    let mut response = next.run(request).await;
    if !is_worth_it(&response) {
        return response;
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    let Some(coding) = coding else { return response };
    let (mut parts, body) = response.into_parts();
    let Ok(encoder) = Encoder::new(coding) else { return Response::from_parts(parts, body) };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    let pieces = Compressing {
        plain: body.into_data_stream().boxed(),
        chunk: Bytes::new(),
        encoder: Some(encoder),
    };
    Response::from_parts(
        parts,
        Body::from_stream(futures::stream::unfold(pieces, Compressing::next)),
    )
}

/// Small answers and Parquet, which is compressed within, leave as they are.
fn is_worth_it(response: &Response) -> bool {
    let headers = response.headers();
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_small = response.body().size_hint().upper().is_some_and(|bytes| bytes < BYTES_MIN);
    !is_small
        && !headers.contains_key(header::CONTENT_ENCODING)
        && kind.is_some_and(|kind| kind != crate::encode::Format::Parquet.content_type())
}

/// A body under way.
struct Compressing {
    plain: BoxStream<'static, Result<Bytes, axum::Error>>,
    /// Read and not yet compressed.
    chunk: Bytes,
    /// Nothing once the end is out.
    encoder: Option<Encoder>,
}

impl Compressing {
    async fn next(mut self) -> Option<(Result<Bytes, axum::Error>, Self)> {
        loop {
            let encoder = self.encoder.as_mut()?;
            if self.chunk.is_empty() {
                match self.plain.next().await {
                    Some(Ok(piece)) => self.chunk = piece,
                    Some(Err(error)) => {
                        self.encoder = None;
                        return Some((Err(error), self));
                    }
                    None => {
                        let end = self.encoder.take()?.finish();
                        return Some((end.map(Bytes::from).map_err(axum::Error::new), self));
                    }
                }
            }
            let now = self.chunk.split_to(self.chunk.len().min(CHUNK_BYTES));
            match encoder.push(&now, self.chunk.is_empty()) {
                Ok(bytes) if bytes.is_empty() => {}
                bytes => return Some((bytes.map(Bytes::from).map_err(axum::Error::new), self)),
            }
        }
    }
}

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding) -> std::io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::fast())),
            Coding::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 1)?),
        })
    }

    /// Compresses bytes; with `flush`, all that was pushed so far can be read from what came out.
    fn push(&mut self, bytes: &[u8], flush: bool) -> std::io::Result<Vec<u8>> {
        Ok(match self {
            Self::Gzip(encoder) => {
                encoder.write_all(bytes)?;
                if flush {
                    encoder.flush()?;
                }
                std::mem::take(encoder.get_mut())
            }
            Self::Zstd(encoder) => {
                encoder.write_all(bytes)?;
                if flush {
                    encoder.flush()?;
                }
                std::mem::take(encoder.get_mut())
            }
        })
    }

    fn finish(self) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn the_client_says_how_answers_are_compressed() {
        let accepted = |text| Coding::accepted(&headers(header::ACCEPT_ENCODING, text));
        assert_eq!(Coding::accepted(&HeaderMap::new()), None);
        assert_eq!(accepted("gzip, deflate, br"), Some(Coding::Gzip));
        assert_eq!(accepted("gzip, zstd"), Some(Coding::Zstd));
        assert_eq!(accepted("zstd;q=0.5, gzip"), Some(Coding::Gzip));
        assert_eq!(accepted("zstd;q=0, gzip;q=0, br"), None);
        assert_eq!(accepted("identity"), None);
    }

    #[test]
    fn what_is_compressed_reads_back_within_the_limit() {
        let plain = b"as of ".repeat(100_000);
        for coding in [Coding::Gzip, Coding::Zstd] {
            let mut encoder = Encoder::new(coding).unwrap();
            let mut bytes = encoder.push(&plain[..1000], true).unwrap();
            assert!(!bytes.is_empty(), "a flush brings out what there is");
            bytes.extend(encoder.push(&plain[1000..], false).unwrap());
            bytes.extend(encoder.finish().unwrap());
            assert!(bytes.len() < plain.len() / 50);
            assert_eq!(coding.decompress(&bytes, plain.len()).unwrap(), plain);
            let bomb = coding.decompress(&bytes, plain.len() - 1).unwrap_err();
            assert_eq!(bomb.code, Code::BodyTooLarge);
            let wrong = coding.decompress(b"plain text", 1000).unwrap_err();
            assert_eq!(wrong.code, Code::InvalidRequest);
        }
    }

    #[test]
    fn other_ways_of_compression_are_refused() {
        let coding = |text| Coding::of_request(&headers(header::CONTENT_ENCODING, text));
        assert_eq!(coding("gzip").unwrap(), Some(Coding::Gzip));
        assert_eq!(coding("identity").unwrap(), None);
        assert_eq!(coding("br").unwrap_err().code.entry().http, 415);
    }

    #[test]
    fn fuzzed_bodies_are_decompressed_or_refused() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let body = br#"{"sql": "SELECT 1, 2, 3, 4", "params": [1, 1, 1, 1, 1, 1, 1, 1]}"#;
            let mut encoder = Encoder::new(coding).unwrap();
            let mut packed = encoder.push(body, true).unwrap();
            packed.extend(encoder.finish().unwrap());
            everwhen_fuzz::Fuzz::bytes(coding.name(), [packed]).run(|bytes| {
                let read = coding.decompress(bytes, 1 << 16);
                read.is_ok_and(|bytes| bytes.len() <= 1 << 16)
            });
        }
    }
}

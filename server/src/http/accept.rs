//! The `Accept` header: which form of rows a request wants.

use axum::http::{HeaderMap, header};

use crate::code::Code;
use crate::encode::Format;
use crate::failure::{Answered, Failure};

/// Picks the form a request accepts; JSON where it does not say.
///
/// # Errors
/// `not_acceptable` where it accepts none of them.
pub fn accepted(headers: &HeaderMap) -> Answered<Format> {
    let ranges: Vec<_> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(Range::parse)
        .collect();
    if ranges.is_empty() {
        return Ok(Format::Json);
    }
    let mut best: Option<(f32, Format)> = None;
    for format in Format::ALL {
        let weight = ranges
            .iter()
            .filter(|range| range.covers(format))
            .max_by_key(|range| range.precision())
            .map_or(0.0, |range| range.weight);
        if weight > 0.0 && best.is_none_or(|(most, _)| weight > most) {
            best = Some((weight, format));
        }
    }
    best.map(|(_, format)| format).ok_or_else(|| {
        Failure::new(Code::NotAcceptable, "none of the accepted media types is offered").with_hint(
            "offered are: application/json, application/x-ndjson, text/csv, \
                 application/vnd.apache.arrow.stream, application/vnd.apache.parquet",
        )
    })
}

/// One part of an `Accept` header.
struct Range {
    media: String,
    weight: f32,
}

impl Range {
    fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts
            .find_map(|part| part.strip_prefix("q="))
            .map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
        Self { media, weight }
    }

    fn covers(&self, format: Format) -> bool {
        let offered = format.content_type().split(';').next().unwrap_or_default();
        match self.media.as_str() {
            "*/*" => true,
            "application/ndjson" | "application/jsonl" => format == Format::Ndjson,
            media => match media.strip_suffix("/*") {
                Some(kind) => offered.split('/').next() == Some(kind),
                None => media == offered,
            },
        }
    }

    fn precision(&self) -> usize {
        self.media.matches(|c: char| c != '*').count()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn accept(text: &'static str) -> Answered<Format> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(text));
        accepted(&headers)
    }

    #[test]
    fn accept_header_picks_the_form() {
        assert_eq!(accepted(&HeaderMap::new()).unwrap(), Format::Json);
        assert_eq!(accept("*/*").unwrap(), Format::Json);
        assert_eq!(accept("application/x-ndjson").unwrap(), Format::Ndjson);
        assert_eq!(accept("text/csv").unwrap(), Format::Csv);
        assert_eq!(accept("text/*").unwrap(), Format::Csv);
        assert_eq!(accept("application/vnd.apache.arrow.stream").unwrap(), Format::Arrow);
        assert_eq!(accept("application/vnd.apache.parquet").unwrap(), Format::Parquet);
        assert_eq!(accept("application/json;q=0.1, text/csv").unwrap(), Format::Csv);
        assert_eq!(accept("application/json;q=0, */*").unwrap(), Format::Ndjson);
        assert_eq!(accept("image/png").unwrap_err().code.entry().http, 406);
    }

    #[test]
    fn fuzzed_headers_are_read_or_refused() {
        let texts = ["text/csv;q=0.5, application/json", "*/*;q=1e309, application/*;q=nan"];
        everwhen_fuzz::Fuzz::text("accept headers", texts).run_text(|text| {
            let Ok(value) = HeaderValue::from_str(text) else { return false };
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, value);
            accepted(&headers).is_ok()
        });
    }
}

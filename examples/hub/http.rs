//! HTTP/1.1 without input and output: parses requests and formats responses.

use std::{io::Write, str};

/// The maximum length of a request's head, bytes.
const MAX_HEAD: usize = 8 * 1024;
/// The maximum length of a request's body, bytes.
const MAX_BODY: usize = 64 * 1024;
const MAX_HEADERS: usize = 32;

pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub body: &'a [u8],
    /// `true` if the client may send another request on the connection.
    pub keep_alive: bool,
    /// The length of the request in the input, bytes.
    pub length: usize,
}

pub enum Parsed<'a> {
    Incomplete,
    Request(Request<'a>),
    /// Answer with this status and close the connection, because the beginning of the next request is unknown.
    Refused(u16),
}

/// Parses the first request in `input`.
pub fn parse(input: &[u8]) -> Parsed<'_> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(input) {
        Ok(httparse::Status::Complete(head)) if head <= MAX_HEAD => head,
        Ok(httparse::Status::Partial) if input.len() < MAX_HEAD => return Parsed::Incomplete,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Parsed::Refused(431),
        Err(_) => return Parsed::Refused(400),
    };
    let (Some(method), Some(path)) = (request.method, request.path) else {
        return Parsed::Refused(400);
    };
    let mut keep_alive = request.version == Some(1);
    let mut body_length = None;
    for header in request.headers {
        let name = header.name;
        if name.eq_ignore_ascii_case("content-length") {
            let digits = header.value.iter().all(u8::is_ascii_digit);
            let length = str::from_utf8(header.value).ok().map(str::parse::<usize>);
            match length {
                Some(Ok(length)) if digits && body_length.is_none() => body_length = Some(length),
                _ => return Parsed::Refused(400),
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Parsed::Refused(501);
        } else if name.eq_ignore_ascii_case("connection") {
            for option in header.value.split(|&byte| byte == b',') {
                let option = option.trim_ascii();
                if option.eq_ignore_ascii_case(b"close") {
                    keep_alive = false;
                }
            }
        }
    }
    let body_length = body_length.unwrap_or(0);
    if body_length > MAX_BODY {
        return Parsed::Refused(413);
    }
    match input[head..].get(..body_length) {
        None => Parsed::Incomplete,
        Some(body) => Parsed::Request(Request {
            method,
            path,
            body,
            keep_alive,
            length: head + body_length,
        }),
    }
}

/// Appends a response to `output`.
pub fn respond(output: &mut Vec<u8>, status: u16, keep_alive: bool, body: &[u8]) {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        _ => "",
    };
    let connection = if keep_alive { "keep-alive" } else { "close" };
    write!(
        output,
        "HTTP/1.1 {status} {reason}\r\n\
         Content-Type: text/plain\r\n\
         Content-Length: {}\r\n\
         Connection: {connection}\r\n\
         \r\n",
        body.len()
    )
    .expect("a vector can be written to");
    output.extend_from_slice(body);
}

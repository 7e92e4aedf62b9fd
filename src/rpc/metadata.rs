//! The headers of a call: what gRPC wants to know, and OpenIM's metadata with its rules (spec 6.1, 6.2).

use http::{HeaderMap, Method as HttpMethod, StatusCode, header, request};

use bytes::Bytes;

use super::services::{Catalog, Method, Patience};
use crate::ids::Text;
use crate::wire::grpc::{Dialect, Status, code, parse_timeout};

/// A head that is no call that can be served.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// 200, unless the request is not gRPC at all.
    pub(super) http: StatusCode,
    /// What is wrong.
    pub(super) status: Status,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { http: StatusCode::OK, status }
    }
}

/// What transport needs of a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CallHead {
    /// Which call.
    pub(super) method: Method,
    /// The caller's deadline, if it gave one.
    pub(super) timeout_ms: Option<u64>,
    /// How compressed messages of the request are packed.
    pub(super) coding: Coding,
}

/// `grpc-encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// None: no message may have the compressed flag.
    Identity,
    /// Messages with the flag are gzip.
    Gzip,
}

impl CallHead {
    /// Judges a head in grpc-go's order: HTTP method, content type, timeout, path, compression.
    pub(super) fn read(head: &request::Parts, catalog: Catalog) -> Result<Self, Refusal> {
        if head.method != HttpMethod::POST {
            return Err(Refusal {
                http: StatusCode::METHOD_NOT_ALLOWED,
                status: Status::new(code::INTERNAL, "gRPC requests are POST"),
            });
        }
        if !is_grpc(&head.headers) {
            return Err(Refusal {
                http: StatusCode::UNSUPPORTED_MEDIA_TYPE,
                status: Status::new(code::INVALID_ARGUMENT, "invalid gRPC request content-type"),
            });
        }
        let timeout_ms = timeout(&head.headers)?;
        let method = catalog.method(head.uri.path())?;
        let coding = coding(&head.headers)?;
        Ok(Self { method, timeout_ms, coding })
    }

    /// How long the call may take: the caller's deadline less a tenth, so that the answer arrives before it, within
    /// our patience.
    pub(super) fn budget_ms(&self, patience: Patience) -> u64 {
        self.timeout_ms.map_or(patience.unasked_ms, |ms| patience.most_ms.min(ms - ms / 10))
    }
}

/// `application/grpc`, alone or followed by `+` or `;`.
fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(|v| v.as_bytes());
    match content_type.and_then(|v| v.strip_prefix(b"application/grpc")) {
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';')),
        None => false,
    }
}

fn timeout(headers: &HeaderMap) -> Result<Option<u64>, Status> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let ms = value.to_str().ok().and_then(parse_timeout);
    match ms {
        Some(_) => Ok(ms),
        None => Err(Status::new(code::INTERNAL, "malformed grpc-timeout")),
    }
}

fn coding(headers: &HeaderMap) -> Result<Coding, Status> {
    match headers.get("grpc-encoding").map_or(&b"identity"[..], |v| v.as_bytes()) {
        b"identity" => Ok(Coding::Identity),
        b"gzip" => Ok(Coding::Gzip),
        other => Err(Status::new(
            code::UNIMPLEMENTED,
            format!("grpc: Decompressor is not installed for grpc-encoding \"{}\"", other.escape_ascii()),
        )),
    }
}

/// OpenIM's metadata of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// `operationid`; may be empty for callers of 3.7 and newer.
    pub(super) operation_id: Text,
    /// `opuserid`, taken if there is exactly one.
    pub(super) user: Option<Text>,
    /// MAIN's marker of internal calls.
    pub(super) temp_admin: bool,
}

/// In the login checks of a node of a cluster: its node id.
pub(super) const NODE_KEY: &str = "pinion-node";

/// Listed in `customheader` by MAIN's internal callers (spec 6.2).
const TEMP_ADMIN_KEY: &str = "ctxImTempAdminKey";

impl Metadata {
    /// Applies spec 6.1. A grpc-go server always finds some metadata (content type, user agent), so a call without
    /// `operationid` is `operationID error` and never `missing metadata`.
    pub(super) fn read(headers: &HeaderMap, dialect: Dialect) -> Result<Self, Status> {
        let refused = |text: String| Status::new(code::INVALID_ARGUMENT, text);
        let operation_id = only(headers, "operationid")
            .filter(|id| dialect == Dialect::Openim || !id.is_empty())
            .ok_or_else(|| refused("operationID error".to_owned()))?;
        let mut temp_admin = false;
        for key in headers.get_all("customheader") {
            let key = key.to_str().unwrap_or_default();
            let Some(value) = headers.get(key) else {
                return Err(refused(format!("missing metadata key {key}")));
            };
            temp_admin |= key.eq_ignore_ascii_case(TEMP_ADMIN_KEY) && value.as_bytes() == b"1";
        }
        Ok(Self { operation_id, user: only(headers, "opuserid"), temp_admin })
    }
}

/// The value of a key that comes exactly once.
fn only(headers: &HeaderMap, key: &str) -> Option<Text> {
    let mut values = headers.get_all(key).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    Text::new(Bytes::copy_from_slice(value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RpcConfig;
    use crate::config::cluster::MembershipSource;
    use crate::rpc::services::Unary;
    use http::Request;

    fn catalog() -> Catalog {
        Catalog::new(&RpcConfig::at("127.0.0.1:0".parse().unwrap()), MembershipSource::None)
    }

    fn head(path: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::post(format!("http://gateway{path}"));
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn paths_and_transport_headers_have_their_outcomes() {
        const GRPC: (&str, &str) = ("content-type", "application/grpc");
        let push = "/openim.msggateway.msgGateway/SuperGroupOnlineBatchPushOneMsg";
        /// Path, headers, and the timeout or HTTP status and grpc-status.
        type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], Result<Option<u64>, (u16, i32)>);
        let table: [Row<'_>; 9] = [
            (push, &[GRPC], Ok(None)),
            (push, &[("content-type", "application/grpc+proto")], Ok(None)),
            (push, &[GRPC, ("grpc-timeout", "2S"), ("grpc-encoding", "identity")], Ok(Some(2_000))),
            (push, &[], Err((415, 3))),
            (push, &[("content-type", "application/grpcx")], Err((415, 3))),
            (push, &[GRPC, ("grpc-timeout", "soon")], Err((200, 13))),
            (push, &[GRPC, ("grpc-encoding", "gzip")], Ok(None)),
            (push, &[GRPC, ("grpc-encoding", "deflate")], Err((200, 12))),
            ("/x", &[GRPC], Err((200, 12))),
        ];
        for (path, headers, expected) in table {
            let got = CallHead::read(&head(path, headers), catalog());
            let got = got.map(|h| h.timeout_ms).map_err(|r| (r.http.as_u16(), r.status.code));
            assert_eq!(got, expected, "{path} {headers:?}");
        }
        let (get, ()) = Request::get("http://g/").body(()).unwrap().into_parts();
        assert_eq!(CallHead::read(&get, catalog()).unwrap_err().http.as_u16(), 405);
    }

    fn read(headers: &[(&str, &str)]) -> Result<Metadata, Status> {
        Metadata::read(&head("/", headers).headers, Dialect::Openim)
    }

    #[test]
    fn trap_18_exactly_one_operation_id() {
        // Spec trap 18 and 6.1. An empty one is enough for 3.7 and newer, not for 3.5 and 3.6.
        let refused = || Err(Status::new(3, "operationID error"));
        /// Metadata, and the id for either dialect.
        type Row<'a> = (&'a [(&'a str, &'a str)], [Option<&'a str>; 2]);
        let table: [Row<'_>; 5] = [
            (&[], [None, None]),
            (&[("operationid", "a")], [Some("a"), Some("a")]),
            (&[("operationid", "")], [Some(""), None]),
            (&[("operationid", "a"), ("operationid", "a")], [None, None]),
            (&[("operation-id", "a")], [None, None]),
        ];
        for (headers, expected) in table {
            for (dialect, expected) in [Dialect::Openim, Dialect::Legacy].into_iter().zip(expected) {
                let read = Metadata::read(&head("/", headers).headers, dialect);
                let id = read.map(|m| m.operation_id.as_str().to_owned());
                assert_eq!(
                    id,
                    expected.map_or_else(refused, |id| Ok(id.to_owned())),
                    "{headers:?} {dialect:?}"
                );
            }
        }
    }

    #[test]
    fn keys_that_custom_headers_name_must_be_there() {
        const OP: (&str, &str) = ("operationid", "a");
        let missing = |key: &str| Err(Status::new(3, format!("missing metadata key {key}")));
        let temp_admin = |headers: &[(&str, &str)]| read(headers).map(|m| m.temp_admin);
        let named = ("customheader", "ctxImTempAdminKey");
        let other = ("customheader", "x-other");
        for (headers, expected) in [
            (vec![OP], Ok(false)),
            (vec![OP, named], missing("ctxImTempAdminKey")),
            (vec![OP, named, ("ctximtempadminkey", "1")], Ok(true)),
            (vec![OP, named, ("ctximtempadminkey", "0")], Ok(false)),
            (vec![OP, named, ("ctximtempadminkey", "")], Ok(false)),
            (vec![OP, ("ctximtempadminkey", "1")], Ok(false)),
            (vec![OP, named, other, ("ctximtempadminkey", "1")], missing("x-other")),
            (vec![OP, other, named, ("ctximtempadminkey", "1"), ("x-other", "")], Ok(true)),
            (vec![OP, ("customheader", "")], missing("")),
            (vec![OP, ("customheader", "no header")], missing("no header")),
            // The operation id comes first.
            (vec![named], Err(Status::new(3, "operationID error"))),
        ] {
            assert_eq!(temp_admin(&headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn the_acting_user_counts_when_there_is_exactly_one() {
        for (users, expected) in [(vec![], None), (vec!["u"], Some("u")), (vec!["u", "v"], None)] {
            let mut headers = vec![("operationid", "a")];
            headers.extend(users.iter().map(|user| ("opuserid", *user)));
            let user = read(&headers).unwrap().user;
            assert_eq!(user.as_ref().map(Text::as_str), expected, "{users:?}");
        }
    }

    #[test]
    fn a_call_is_answered_before_the_callers_deadline_and_within_ours() {
        let patience = Patience { unasked_ms: 5_000, most_ms: 8_000 };
        let method = Method::Unary(Unary::HealthCheck);
        let budget =
            |timeout_ms| CallHead { method, timeout_ms, coding: Coding::Identity }.budget_ms(patience);
        assert_eq!(budget(None), 5_000);
        assert_eq!(budget(Some(1_000)), 900);
        assert_eq!(budget(Some(60_000)), 8_000);
        assert_eq!(budget(Some(0)), 0);
    }
}

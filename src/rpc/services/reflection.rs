//! Server reflection: hands out the proto files of the services that are served, by name or by symbol.
//!
//! The set is what `build.rs` compiled from `proto/`. It is walked anew for each question: debugging tools ask seldom,
//! and it is small. Versions `v1` and `v1alpha` of the protocol are the same on the wire. What always holds: what is
//! handed out is a slice of the set, and with a file come all its imports.

use bytes::Bytes;
use prost::Message;

use crate::cluster::fields::{Fields, Value};
use crate::pb::SERVED_FILES;
use crate::pb::grpc::reflection as pb;
use crate::pb::grpc::reflection::server_reflection_request::MessageRequest;
use crate::pb::grpc::reflection::server_reflection_response::MessageResponse;
use crate::rpc::call::{End, Service, StreamCall};
use crate::rpc::stream::unless_draining;
use crate::wire::grpc::code;

/// Answers each question of a stream, in order, until the caller has no more.
pub(super) async fn serve(service: &Service, mut call: StreamCall) -> Result<(), End> {
    while let Some(received) = unless_draining(&call.drain, call.inbound.next()).await? {
        let request = pb::ServerReflectionRequest::decode(received.bytes)
            .map_err(|error| super::undecodable(service, error))?;
        call.outbound.send(&answer(request, service.catalog.services())).await?;
    }
    Ok(())
}

/// What a descriptor holds that has a name, by field number of `google/protobuf/descriptor.proto`. All of them have
/// their name in field 1.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Message,
    Enum,
    Service,
    /// A field, a oneof, a method.
    Leaf,
}

impl Kind {
    fn members(self) -> &'static [(u32, Self)] {
        match self {
            Self::File => &[(4, Self::Message), (5, Self::Enum), (6, Self::Service)],
            Self::Message => &[(3, Self::Message), (4, Self::Enum), (2, Self::Leaf), (8, Self::Leaf)],
            Self::Service => &[(2, Self::Leaf)],
            Self::Enum | Self::Leaf => &[],
        }
    }
}

/// The answer to one question. `services` are the full names of those that are served.
fn answer(
    request: pb::ServerReflectionRequest,
    services: impl Iterator<Item = &'static str>,
) -> pb::ServerReflectionResponse {
    let not_found = |what: &str| error(code::NOT_FOUND, format!("{what} is not known here"));
    let files = |file: Option<Bytes>, what: &str| match file {
        Some(file) => MessageResponse::FileDescriptorResponse(pb::FileDescriptorResponse {
            file_descriptor_proto: with_imports(file),
        }),
        None => not_found(what),
    };
    let response = match &request.message_request {
        Some(MessageRequest::ListServices(_)) => {
            let service = services.map(|name| pb::ServiceResponse { name: name.to_owned() }).collect();
            MessageResponse::ListServicesResponse(pb::ListServiceResponse { service })
        }
        Some(MessageRequest::FileByFilename(name)) => files(file_named(name.as_bytes()), name),
        Some(MessageRequest::FileContainingSymbol(symbol)) => files(file_with(symbol), symbol),
        Some(MessageRequest::FileContainingExtension(extension)) => not_found(&extension.containing_type),
        Some(MessageRequest::AllExtensionNumbersOfType(name)) => not_found(name),
        None => error(code::INVALID_ARGUMENT, "the request asks for nothing".to_owned()),
    };
    pb::ServerReflectionResponse {
        valid_host: request.host.clone(),
        original_request: Some(request),
        message_response: Some(response),
    }
}

fn error(error_code: i32, error_message: String) -> MessageResponse {
    MessageResponse::ErrorResponse(pb::ErrorResponse { error_code, error_message })
}

/// All files, as `FileDescriptorProto`.
fn files() -> impl Iterator<Item = Bytes> {
    values(&Bytes::from_static(SERVED_FILES), 1)
}

fn file_named(name: &[u8]) -> Option<Bytes> {
    files().find(|file| is_named(file, name))
}

/// The file that defines a full name.
fn file_with(symbol: &str) -> Option<Bytes> {
    files().find(|file| {
        let package = values(file, 2).next().unwrap_or_default();
        let rest = symbol.as_bytes().strip_prefix(&*package).and_then(|rest| rest.strip_prefix(b"."));
        rest.is_some_and(|rest| has(file, Kind::File, rest))
    })
}

/// The file, then what it imports, each once.
fn with_imports(file: Bytes) -> Vec<Bytes> {
    let mut found = vec![file];
    let mut next = 0;
    while let Some(file) = found.get(next).cloned() {
        for import in values(&file, 3) {
            if !found.iter().any(|file| is_named(file, &import)) {
                found.extend(file_named(&import));
            }
        }
        next += 1;
    }
    found
}

/// Whether a scope defines a name, relative to it. The recursion is as deep as our own files are nested.
fn has(scope: &Bytes, kind: Kind, name: &[u8]) -> bool {
    let mut parts = name.splitn(2, |byte| *byte == b'.');
    let (Some(first), rest) = (parts.next(), parts.next()) else { return false };
    kind.members().iter().any(|(number, member)| {
        values(scope, *number).any(|bytes| match rest {
            Some(rest) => is_named(&bytes, first) && has(&bytes, *member, rest),
            // The values of an enum are names of the scope around it.
            None => {
                let mut enum_values = values(&bytes, 2).filter(|_| *member == Kind::Enum);
                is_named(&bytes, first) || enum_values.any(|value| is_named(&value, first))
            }
        })
    })
}

fn is_named(descriptor: &Bytes, name: &[u8]) -> bool {
    values(descriptor, 1).next().is_some_and(|found| found == name)
}

/// The length-delimited values of a field.
fn values(message: &Bytes, number: u32) -> impl Iterator<Item = Bytes> + use<> {
    Fields::of(message.clone()).filter_map(move |field| match field {
        Ok((found, Value::Bytes(bytes))) if found == number => Some(bytes),
        _ => None,
    })
}

/// The methods that the files declare for a service.
#[cfg(test)]
pub(super) fn methods_of(service: &str) -> Vec<String> {
    let text = |name: Bytes| String::from_utf8(name.to_vec()).unwrap();
    let (_, short) = service.rsplit_once('.').unwrap();
    let services = values(&file_with(service).unwrap(), 6).filter(|found| is_named(found, short.as_bytes()));
    services.flat_map(|found| values(&found, 2)).map(|m| text(values(&m, 1).next().unwrap())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer's files by name, or its error.
    fn ask(message_request: Option<MessageRequest>) -> Result<Vec<String>, i32> {
        let request = pb::ServerReflectionRequest { host: "h".into(), message_request };
        let answer = answer(request.clone(), ["a.B", "c.D"].into_iter());
        assert_eq!((answer.valid_host.as_str(), answer.original_request), ("h", Some(request)));
        let name = |file: &Bytes| String::from_utf8(values(file, 1).next().unwrap().to_vec()).unwrap();
        match answer.message_response.unwrap() {
            MessageResponse::FileDescriptorResponse(found) => {
                Ok(found.file_descriptor_proto.iter().map(name).collect())
            }
            MessageResponse::ListServicesResponse(list) => {
                Ok(list.service.into_iter().map(|s| s.name).collect())
            }
            MessageResponse::ErrorResponse(error) => Err(error.error_code),
            MessageResponse::AllExtensionNumbersResponse(_) => panic!("nobody sends this"),
        }
    }

    #[test]
    fn every_kind_of_symbol_leads_to_its_file() {
        const GATEWAY: &str = "openim/msggateway/msggateway.proto";
        const HEALTH: &str = "grpc/health/v1/health.proto";
        for (symbol, file) in [
            ("openim.msggateway.msgGateway", Some(GATEWAY)),
            ("openim.msggateway.msgGateway.KickUserOffline", Some(GATEWAY)),
            ("openim.msggateway.KickUserOfflineReq", Some(GATEWAY)),
            ("openim.msggateway.KickUserOfflineReq.platformID", Some(GATEWAY)),
            ("openim.msggateway.GetUsersOnlineStatusResp.SuccessDetail", Some(GATEWAY)),
            ("openim.msggateway.GetUsersOnlineStatusResp.SuccessDetail.token", Some(GATEWAY)),
            ("openim.sdkws.MsgData", Some("openim/sdkws/sdkws.proto")),
            ("openim.protobuf.ErrorInfo", Some("openim/errinfo/errinfo.proto")),
            ("OpenIMServer.msggateway.msgGateway", Some("openim/legacy/msggateway.proto")),
            ("OpenIMServer.protobuf.ErrorInfo", Some("openim/legacy/errinfo.proto")),
            ("google.rpc.Status", Some("google/rpc/status.proto")),
            ("pinion.v1.Push.Stream", Some("pinion/v1/push.proto")),
            ("pinion.v1.PushMessage.to", Some("pinion/v1/push.proto")),
            ("grpc.health.v1.HealthCheckResponse.ServingStatus", Some(HEALTH)),
            ("grpc.health.v1.HealthCheckResponse.SERVING", Some(HEALTH)),
            ("grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING", None),
            ("grpc.reflection.v1.ServerReflection", Some("grpc/reflection/v1/reflection.proto")),
            ("grpc.reflection.v1alpha.ServerReflection", Some("grpc/reflection/v1alpha/reflection.proto")),
            ("openim.msggateway", None),
            ("openim.msggateway.", None),
            ("openim.msggateway.msgGateway.", None),
            ("openim.msggateway.msgGateway.Kick", None),
            ("msgGateway", None),
            (".openim.msggateway.msgGateway", None),
            ("", None),
        ] {
            let found = ask(Some(MessageRequest::FileContainingSymbol(symbol.to_owned())));
            let first = found.as_ref().map(|files| files[0].as_str());
            assert_eq!(first, file.ok_or(&code::NOT_FOUND), "{symbol}");
        }
    }

    #[test]
    fn a_file_comes_with_its_imports() {
        let files = ask(Some(MessageRequest::FileByFilename("openim/msggateway/msggateway.proto".into())));
        let with_import = ["openim/msggateway/msggateway.proto", "openim/sdkws/sdkws.proto"];
        assert_eq!(files.unwrap(), with_import);
        for name in ["", "msggateway.proto", "/openim/msggateway/msggateway.proto"] {
            assert_eq!(
                ask(Some(MessageRequest::FileByFilename(name.into()))),
                Err(code::NOT_FOUND),
                "{name}"
            );
        }
    }

    #[test]
    fn services_are_listed_and_what_proto3_lacks_is_not_found() {
        assert_eq!(ask(Some(MessageRequest::ListServices(String::new()))).unwrap(), ["a.B", "c.D"]);
        let containing_type = "openim.sdkws.MsgData".to_owned();
        let extension =
            pb::ExtensionRequest { containing_type: containing_type.clone(), extension_number: 7 };
        let by_number = MessageRequest::FileContainingExtension(extension);
        assert_eq!(ask(Some(by_number)), Err(code::NOT_FOUND));
        assert_eq!(
            ask(Some(MessageRequest::AllExtensionNumbersOfType(containing_type))),
            Err(code::NOT_FOUND)
        );
        assert_eq!(ask(None), Err(code::INVALID_ARGUMENT));
    }

    #[test]
    fn every_import_of_the_set_is_in_it() {
        for file in files() {
            for import in values(&file, 3) {
                assert!(file_named(&import).is_some(), "{import:?}");
            }
        }
        assert_eq!(files().count(), 11);
    }
}

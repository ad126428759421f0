//! Texts and bytes in a message, looked at one by one with the place where each stands, and replaced where that is wanted.

use prost::encoding::{WireType, encode_key, encode_varint};

use super::{
    check::{any, merged},
    json::Unreadable,
    types::{Field, Kind, Type, WellKnown},
    wire::{self, Wire},
};

/// How deep messages may be nested; protobuf refuses to read what is deeper.
const DEEPEST: usize = 100;

/// One step on the way to a text: a field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The full name of the message's type.
    pub of: &'static str,
    /// The field's name, as in the `.proto` file.
    pub field: &'static str,
}

/// What is put in place of a text or bytes, if anything is.
pub type With<'a> = &'a mut dyn FnMut(&[Step], &[u8]) -> Option<Vec<u8>>;

/// The message of the type that `type_url` names, with what `with` gives for a text or bytes in place of it.
///
/// `with` is shown every field that holds either and is there, in whatever message or `Any` inside, with the way to it, outermost
/// first.
///
/// # Errors
/// What is no message of its type, holds one of an unknown type, or is nested too deeply.
pub fn replace(type_url: &str, message: &[u8], with: With<'_>) -> Result<Vec<u8>, Unreadable> {
    let of = Type::of_url(type_url).ok_or(Unreadable)?;
    Replace { way: Vec::new(), with }.message(of, message)
}

struct Replace<'a> {
    way: Vec<Step>,
    with: With<'a>,
}

impl Replace<'_> {
    fn message(&mut self, of: &'static Type, bytes: &[u8]) -> Result<Vec<u8>, Unreadable> {
        if self.way.len() > DEEPEST {
            return Err(Unreadable);
        }
        let found = wire::fields(bytes)?;
        let mut written = Vec::with_capacity(bytes.len());
        let mut rest = found.as_slice();
        while let Some((number, _)) = rest.first() {
            let many = rest.iter().take_while(|(other, _)| other == number).count();
            let (occurrences, after) = rest.split_at(many);
            rest = after;
            let field = of.field(*number).ok_or(Unreadable)?;
            self.way.push(Step { of: of.name, field: field.name.as_str() });
            self.field(field, occurrences, &mut written)?;
            self.way.pop();
        }
        Ok(written)
    }

    fn field(
        &mut self,
        field: &'static Field,
        occurrences: &[(u32, Wire<'_>)],
        written: &mut Vec<u8>,
    ) -> Result<(), Unreadable> {
        match field.kind {
            Kind::Message => {
                let of = field.of().ok_or(Unreadable)?;
                if !field.repeated && !of.is_map_entry {
                    // Bytes may lie in pieces: what is one message is looked at as one.
                    let whole = merged(occurrences)?.unwrap_or_default();
                    let inner = self.inner(of, &whole)?;
                    put_bytes(field.number, &inner, written);
                    return Ok(());
                }
                for (_, wire) in occurrences {
                    let Wire::Bytes(bytes) = wire else { return Err(Unreadable) };
                    let inner = self.inner(of, bytes)?;
                    put_bytes(field.number, &inner, written);
                }
            }
            Kind::String | Kind::Bytes => {
                for (_, wire) in occurrences {
                    let Wire::Bytes(bytes) = wire else { return Err(Unreadable) };
                    match (self.with)(&self.way, bytes) {
                        Some(other) => put_bytes(field.number, &other, written),
                        None => put_bytes(field.number, bytes, written),
                    }
                }
            }
            _ => occurrences.iter().for_each(|(number, wire)| put(*number, *wire, written)),
        }
        Ok(())
    }

    fn inner(&mut self, of: &'static Type, bytes: &[u8]) -> Result<Vec<u8>, Unreadable> {
        if of.well_known != Some(WellKnown::Any) {
            return self.message(of, bytes);
        }
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        let (type_url, value) = any(bytes)?;
        let of = Type::of_url(type_url).ok_or(Unreadable)?;
        let value = self.message(of, value)?;
        let mut written = Vec::with_capacity(bytes.len());
        put_bytes(1, type_url.as_bytes(), &mut written);
        put_bytes(2, &value, &mut written);
        Ok(written)
    }
}

fn put_bytes(number: u32, bytes: &[u8], written: &mut Vec<u8>) {
    put(number, Wire::Bytes(bytes), written);
}

fn put(number: u32, wire: Wire<'_>, written: &mut Vec<u8>) {
    match wire {
        Wire::Varint(value) => {
            encode_key(number, WireType::Varint, written);
            encode_varint(value, written);
        }
        Wire::Fixed64(value) => {
            encode_key(number, WireType::SixtyFourBit, written);
            written.extend_from_slice(&value.to_le_bytes());
        }
        Wire::Fixed32(value) => {
            encode_key(number, WireType::ThirtyTwoBit, written);
            written.extend_from_slice(&value.to_le_bytes());
        }
        Wire::Bytes(bytes) => {
            encode_key(number, WireType::LengthDelimited, written);
            encode_varint(bytes.len() as u64, written);
            written.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Message as _,
        any::{pack_typed, unpack},
        envoy::{
            core::{DataSource, TransportSocket, data_source::Specifier, transport_socket::ConfigType},
            listener::{FilterChain, Listener},
            tls::{CommonTlsContext, DownstreamTlsContext, TlsCertificate},
        },
        google::protobuf::Any,
        type_url,
    };

    fn listener(key: &str, port: u16) -> Listener {
        let file = |name: &str| {
            Some(DataSource { specifier: Some(Specifier::Filename(name.to_owned())), ..DataSource::default() })
        };
        let certificate = TlsCertificate { private_key: file(key), certificate_chain: file("c"), ..Default::default() };
        let common = CommonTlsContext { tls_certificates: vec![certificate], ..CommonTlsContext::default() };
        let context = DownstreamTlsContext { common_tls_context: Some(common), ..DownstreamTlsContext::default() };
        let socket = TransportSocket {
            name: "tls".to_owned(),
            config_type: Some(ConfigType::TypedConfig(pack_typed(&context))),
        };
        let chain = FilterChain { transport_socket: Some(socket), ..FilterChain::default() };
        Listener {
            name: "web".to_owned(),
            address: Some(crate::envoy::core::Address {
                address: Some(crate::envoy::core::address::Address::SocketAddress(crate::envoy::core::SocketAddress {
                    address: "::".to_owned(),
                    port_specifier: Some(crate::envoy::core::socket_address::PortSpecifier::PortValue(port.into())),
                    ..Default::default()
                })),
            }),
            filter_chains: vec![chain],
            ..Listener::default()
        }
    }

    #[test]
    fn one_text_is_replaced_in_an_any_and_all_else_stays() {
        let mut seen = Vec::new();
        let bytes = listener("a", 443).encode_to_vec();
        let replaced = replace(type_url::LISTENER, &bytes, &mut |way, text| {
            seen.push(String::from_utf8_lossy(text).into_owned());
            let [.., certificate, source] = way else { return None };
            let is_key = certificate.field == "private_key" && certificate.of.ends_with(".TlsCertificate");
            (is_key && source.field == "filename").then(|| b"a longer name".to_vec())
        });
        assert_eq!(Listener::decode(&*replaced.unwrap()).unwrap(), listener("a longer name", 443));
        assert_eq!(seen, ["web", "::", "tls", "c", "a"]);
    }

    #[test]
    fn a_message_in_pieces_is_looked_at_as_one() {
        // Type URL and value of one `Any`, in two occurrences of its field.
        let context = pack_typed(&DownstreamTlsContext {
            session_ticket_keys_type: None,
            common_tls_context: Some(CommonTlsContext {
                alpn_protocols: vec!["h2".to_owned()],
                ..CommonTlsContext::default()
            }),
            ..DownstreamTlsContext::default()
        });
        let halves = [Any { value: Vec::new(), ..context.clone() }, Any { type_url: String::new(), ..context }];
        let socket = |any| TransportSocket { config_type: Some(ConfigType::TypedConfig(any)), ..Default::default() };
        let bytes = halves.map(|half| socket(half).encode_to_vec()).concat();
        let url = "x/envoy.config.core.v3.TransportSocket";
        let replaced = replace(url, &bytes, &mut |_, text| (text == b"h2").then(|| b"h3".to_vec())).unwrap();
        let Some(ConfigType::TypedConfig(any)) = TransportSocket::decode(&*replaced).unwrap().config_type else {
            panic!("a context");
        };
        let context: DownstreamTlsContext = unpack(&any).unwrap();
        assert_eq!(context.common_tls_context.unwrap().alpn_protocols, ["h3"]);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for bytes in [&b"\x0a\x05a"[..], b"\xfa\xff\x01\x00"] {
            assert!(replace(type_url::LISTENER, bytes, &mut |_, _| None).is_err());
        }
        assert!(replace("type.googleapis.com/envoy.Nothing", b"", &mut |_, _| None).is_err());
        let unknown = Any { type_url: "type.googleapis.com/envoy.Nothing".to_owned(), value: Vec::new() };
        let socket = TransportSocket { config_type: Some(ConfigType::TypedConfig(unknown)), ..Default::default() };
        let chain = FilterChain { transport_socket: Some(socket), ..FilterChain::default() };
        let bytes = Listener { filter_chains: vec![chain], ..Listener::default() }.encode_to_vec();
        assert!(replace(type_url::LISTENER, &bytes, &mut |_, _| None).is_err());
    }
}

use chancery_proto::{
    envoy::{
        rate_limit_common::{
            RateLimitDescriptor,
            rate_limit_descriptor::{Entry as EntryMessage, RateLimitOverride},
        },
        rls::RateLimitRequest,
    },
    google::protobuf::UInt64Value,
};
use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn entries() -> impl Strategy<Value = EntryMessage> {
    (".{0,12}", ".{0,40}").prop_map(|(key, value)| EntryMessage { key, value })
}

fn descriptors() -> impl Strategy<Value = RateLimitDescriptor> {
    let limits = (any::<u32>(), 0..9_i32);
    let limits = limits.prop_map(|(requests_per_unit, unit)| RateLimitOverride { requests_per_unit, unit });
    let hits = any::<u64>().prop_map(|value| UInt64Value { value });
    (prop::collection::vec(entries(), 0..5), prop::option::weighted(0.2, limits), prop::option::of(hits), any::<bool>())
        .prop_map(|(entries, limit, hits_addend, is_negative_hits)| RateLimitDescriptor {
            entries,
            limit,
            hits_addend,
            is_negative_hits,
        })
}

fn requests() -> impl Strategy<Value = RateLimitRequest> {
    (".{0,20}", prop::collection::vec(descriptors(), 0..6), any::<u32>())
        .prop_map(|(domain, descriptors, hits_addend)| RateLimitRequest { domain, descriptors, hits_addend })
}

/// Both readers, on the same bytes.
fn agree(bytes: &[u8]) -> Result<(), TestCaseError> {
    let theirs = RateLimitRequest::decode(bytes);
    match (read(bytes), &theirs) {
        (Ok(ours), Ok(theirs)) => prop_assert_eq!(Ok(ours), of_message(theirs)),
        (Err(InvalidRequest::Malformed), Err(_)) => {}
        (Err(error), Ok(theirs)) => prop_assert_eq!(Err(error), of_message(theirs)),
        // The generated code takes no values that are not UTF-8.
        (Ok(ours), Err(_)) if says_not_utf8(&ours) => {}
        (Err(InvalidRequest::Unit(_)), Err(_)) => {}
        (ours, theirs) => prop_assert!(false, "{ours:?} but {theirs:?}"),
    }
    Ok(())
}

/// What a message that the generated code has read comes down to.
fn of_message(message: &RateLimitRequest) -> Result<Request<'_>, InvalidRequest> {
    let mut request = Request { domain: &message.domain, descriptors: SmallVec::new() };
    for said in &message.descriptors {
        let limit = said.limit.as_ref().map(|limit| match unit(limit.unit) {
            Some(unit) => Ok(Override { requests: limit.requests_per_unit, unit }),
            None => Err(InvalidRequest::Unit(limit.unit)),
        });
        let own = said.hits_addend.as_ref().map(|hits| hits.value);
        request.descriptors.push(Descriptor {
            entries: said.entries.iter().map(|entry| Entry { key: &entry.key, value: &entry.value }).collect(),
            hits: hits(message.hits_addend, own, said.is_negative_hits),
            limit: limit.transpose()?,
        });
    }
    Ok(request)
}

fn says_not_utf8(request: &Request<'_>) -> bool {
    request.descriptors.iter().flat_map(|descriptor| &descriptor.entries).any(|entry| entry.value == NOT_UTF8)
}

#[test]
fn values_that_are_not_utf8_are_counted_together() {
    let read_value = |value: &[u8]| {
        let entry = [&[0x0a, 1, b'k', 0x12, value.len() as u8], value].concat();
        let descriptor = [&[0x0a, entry.len() as u8], &entry[..]].concat();
        let bytes = [&[0x12, descriptor.len() as u8], &descriptor[..]].concat();
        read(&bytes).unwrap().descriptors[0].entries[0].value.to_owned()
    };
    assert_eq!(read_value(b"\xff\xfe"), NOT_UTF8);
    assert_eq!(read_value(b"caf\xe9"), NOT_UTF8);
    assert_eq!(read_value("café".as_bytes()), "café");
    // Keys and domains are the operator's own.
    assert_eq!(read(&[0x0a, 1, 0xff]), Err(InvalidRequest::Malformed));
}

#[test]
fn values_that_are_too_long_are_counted_together() {
    let read_value = |length: usize, of: &str| {
        let entries = vec![EntryMessage { key: "k".into(), value: of.repeat(length) }];
        let descriptors = vec![RateLimitDescriptor { entries, ..RateLimitDescriptor::default() }];
        let bytes = RateLimitRequest { descriptors, ..RateLimitRequest::default() }.encode_to_vec();
        read(&bytes).unwrap().descriptors[0].entries[0].value.to_owned()
    };
    assert_eq!(read_value(MAX_TEXT, "x"), "x".repeat(MAX_TEXT));
    assert_eq!((&*read_value(MAX_TEXT + 1, "x"), &*read_value(MAX_TEXT + 2, "y")), (TOO_LONG, TOO_LONG));
}

proptest! {
    #[test]
    fn a_request_reads_as_the_generated_code_reads_it(request in requests()) {
        agree(&request.encode_to_vec())?;
    }

    #[test]
    fn a_damaged_request_is_refused_where_the_generated_code_refuses_it(
        request in requests(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = request.encode_to_vec();
        for (at, value) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        agree(&bytes)?;
        bytes.truncate(end.index(bytes.len() + 1));
        agree(&bytes)?;
    }

    #[test]
    fn any_bytes_are_read_or_refused_alike(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        agree(&bytes)?;
    }

    /// Few kinds of bytes, so that keys, lengths and ends of groups meet.
    #[test]
    fn bytes_that_look_like_fields_are_read_or_refused_alike(
        bytes in prop::collection::vec(
            prop::sample::select(vec![0x0a, 0x12, 0x18, 0x0b, 0x0c, 0x1b, 0x1c, 0x2b, 0x2c, 0x08, 0x00, 0x01, 0x02, 0x04, 0x80, 0xff]), 0..24,
        ),
    ) {
        agree(&bytes)?;
    }
}

#[test]
fn groups_are_skipped_to_the_depth_that_the_generated_code_goes() {
    for depth in [1, 50, 98, 99, 100, 101, 102, 5_000] {
        for inner in [&[][..], &[0x28, 1]] {
            let mut bytes = vec![0x2b; depth];
            bytes.extend(inner);
            bytes.extend(vec![0x2c; depth]);
            agree(&bytes).unwrap();
        }
    }
}

#[test]
fn hits_come_from_the_descriptor_or_the_request_or_are_one() {
    assert_eq!(hits(0, None, false), Hits::Take(1));
    assert_eq!(hits(7, None, false), Hits::Take(7));
    assert_eq!(hits(7, Some(0), false), Hits::Take(0));
    assert_eq!(hits(7, Some(3), true), Hits::GiveBack(3));
    assert_eq!(hits(0, None, true), Hits::GiveBack(1));
}

#[test]
fn a_unit_that_does_not_exist_is_named() {
    let limit = Some(RateLimitOverride { requests_per_unit: 1, unit: 9 });
    let descriptor = RateLimitDescriptor { limit, ..RateLimitDescriptor::default() };
    let request = RateLimitRequest { descriptors: vec![descriptor], ..RateLimitRequest::default() };
    assert_eq!(read(&request.encode_to_vec()), Err(InvalidRequest::Unit(9)));
}

//! What the Socket.IO codec promises, by example and by chance.

use std::thread;

use super::*;
use crate::proto::fuzzing::{Random, fuzz};

fn event_packet<'a>(name: &'a str, data: &'a str) -> Packet<'a> {
    Packet::Event { namespace: "/", ack_id: None, name: name.into(), data, attachments: 0 }
}

fn refused(text: &str) -> Error {
    decode(text).expect_err(text)
}

fn name_of(text: &str) -> String {
    match decode(text) {
        Ok(Packet::Event { name, .. }) => name.into_owned(),
        other => panic!("{text} is no event but {other:?}"),
    }
}

fn attachment_count(text: &str) -> Result<usize, Error> {
    decode(text).map(|packet| packet.attachments())
}

/// The Socket.IO text inside a prepared Engine.IO message.
fn socketio_text(prepared: &Prepared) -> &str {
    let packet = str::from_utf8(prepared.packet()).expect("packets are text");
    packet.strip_prefix('4').expect("Socket.IO packets are Engine.IO messages")
}

/// What only clients send. Tests need it to speak both sides.
mod client {
    use super::*;

    pub(super) fn connect(namespace: &str, auth: Option<&str>) -> Prepared {
        super::super::connect(namespace, auth.unwrap_or(""))
    }
}

// ---- Examples -------------------------------------------------------------------------------------------------------

#[test]
fn the_examples_of_the_specification_decode() {
    let bin = r#"["baz",{"_placeholder":true,"num":0}]"#;
    let two = r#"["project",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    let answer = r#"[{"_placeholder":true,"num":0}]"#;
    let table = [
        ("0".into(), Packet::Connect { namespace: "/", auth: None }),
        ("0{\"sid\":\"oS\"}".into(), Packet::Connect { namespace: "/", auth: Some("{\"sid\":\"oS\"}") }),
        ("0/admin,".into(), Packet::Connect { namespace: "/admin", auth: None }),
        ("0/admin,{\"a\":1}".into(), Packet::Connect { namespace: "/admin", auth: Some("{\"a\":1}") }),
        ("1".into(), Packet::Disconnect { namespace: "/" }),
        ("1/admin,".into(), Packet::Disconnect { namespace: "/admin" }),
        ("2[\"foo\"]".into(), event_packet("foo", "[\"foo\"]")),
        (
            "2/admin,[\"bar\"]".into(),
            Packet::Event { namespace: "/admin", ack_id: None, name: "bar".into(), data: "[\"bar\"]", attachments: 0 },
        ),
        (
            "212[\"foo\"]".into(),
            Packet::Event { namespace: "/", ack_id: Some(12), name: "foo".into(), data: "[\"foo\"]", attachments: 0 },
        ),
        (
            "3/admin,13[\"bar\"]".into(),
            Packet::Ack { namespace: "/admin", ack_id: 13, data: "[\"bar\"]", attachments: 0 },
        ),
        (
            "4{\"message\":\"Not authorized\"}".into(),
            Packet::ConnectError { namespace: "/", data: "{\"message\":\"Not authorized\"}" },
        ),
        ("4/old,\"no\"".into(), Packet::ConnectError { namespace: "/old", data: "\"no\"" }),
        (
            format!("51-{bin}"),
            Packet::Event { namespace: "/", ack_id: None, name: "baz".into(), data: bin, attachments: 1 },
        ),
        (
            format!("52-/admin,456{two}"),
            Packet::Event { namespace: "/admin", ack_id: Some(456), name: "project".into(), data: two, attachments: 2 },
        ),
        (
            format!("61-/admin,456{answer}"),
            Packet::Ack { namespace: "/admin", ack_id: 456, data: answer, attachments: 1 },
        ),
    ];
    for (text, packet) in &table {
        let text: &String = text;
        assert_eq!(decode(text).as_ref(), Ok(packet), "{text}");
    }
}

#[test]
fn a_connect_takes_an_object_or_nothing() {
    for (text, namespace, auth) in [
        ("0", "/", None),
        ("0{}", "/", Some("{}")),
        ("0{} \n", "/", Some("{}")),
        ("0/nsp", "/nsp", None),
        ("0/nsp,", "/nsp", None),
        ("0/nsp,{\"token\":\"123\"}", "/nsp", Some("{\"token\":\"123\"}")),
        ("0/nsp,{\"__proto__\":{}}", "/nsp", Some("{\"__proto__\":{}}")),
        ("0/", "/", None),
        ("0/,{}", "/", Some("{}")),
    ] {
        assert_eq!(decode(text), Ok(Packet::Connect { namespace, auth }), "{text}");
    }
    for text in ["0[]", "0\"a\"", "0null", "01", "05{}", "0true", "0 {}", "0/nsp,[]", "0/nsp, {}"] {
        assert_eq!(refused(text), Error::PayloadNotObject, "{text}");
    }
    for text in ["0{", "0{}{}", "0{}x", "0{a:1}", "0{\"a\":01}", "0{\"a\":1,}", "0{'a':1}"] {
        assert_eq!(refused(text), Error::InvalidJson, "{text}");
    }
}

#[test]
fn a_namespace_begins_with_a_slash() {
    assert_eq!(refused("0custom,"), Error::PayloadNotObject);
    assert_eq!(refused("0,"), Error::PayloadNotObject);
    assert_eq!(refused("2custom,[\"a\"]"), Error::PayloadNotArray);
    assert_eq!(refused("2,[\"a\"]"), Error::PayloadNotArray);
}

#[test]
fn a_namespace_ends_at_the_first_comma_or_with_the_packet() {
    assert_eq!(decode("0/a{\"b\":1}"), Ok(Packet::Connect { namespace: "/a{\"b\":1}", auth: None }));
    assert_eq!(decode("0/?x=1"), Ok(Packet::Connect { namespace: "/?x=1", auth: None }));
    assert_eq!(decode("1/é-ü"), Ok(Packet::Disconnect { namespace: "/é-ü" }));
    assert_eq!(refused("2/nsp"), Error::PayloadMissing);
    assert_eq!(refused("2/nsp[\"a\"]"), Error::PayloadMissing);
    assert_eq!(refused("0/nsp,,{}"), Error::PayloadNotObject);
}

#[test]
fn a_disconnect_has_no_payload() {
    for text in ["1{}", "1[]", "1 ", "15", "1null", "1/nsp,{}", "1/nsp,5"] {
        assert_eq!(refused(text), Error::PayloadForbidden, "{text}");
    }
}

#[test]
fn an_event_is_an_array_that_begins_with_its_name() {
    for (text, name) in [
        (r#"2["error"]"#, "error"),
        (r#"2["connection"]"#, "connection"),
        (r#"2["Connect"]"#, "Connect"),
        (r#"2[""]"#, ""),
        ("2[ \t\r\n\"spaced\"\n, 1 ] ", "spaced"),
        (r#"2["a","connect"]"#, "a"),
        (r#"2["caf\u00e9 \"x\" \\"]"#, "café \"x\" \\"),
        (r#"2["\\","b"]"#, "\\"),
        (r#"2["\ud83d\ude00"]"#, "😀"),
        (r#"2["é😀",{}]"#, "é😀"),
        (r#"2["a]"]"#, "a]"),
        (r#"2["a",{"__proto__":1}]"#, "a"),
        (r#"2["a",1e999,"\ud800"]"#, "a"),
    ] {
        assert_eq!(name_of(text), name, "{text}");
    }
    for (text, error) in [
        ("2", Error::PayloadMissing),
        ("27", Error::PayloadMissing),
        ("2[]", Error::NameMissing),
        ("2[ ]", Error::NameMissing),
        ("2{}", Error::PayloadNotArray),
        ("2\"a\"", Error::PayloadNotArray),
        ("2null", Error::PayloadNotArray),
        ("2 [\"a\"]", Error::PayloadNotArray),
        ("2[null]", Error::NameWrongType),
        ("2[true]", Error::NameWrongType),
        ("2[{}]", Error::NameWrongType),
        ("2[[\"a\"]]", Error::NameWrongType),
        (r#"2["\ud800"]"#, Error::NameNotUnicode),
        (r#"2["a"#, Error::InvalidJson),
        (r#"2["a",]"#, Error::InvalidJson),
        (r#"2["a"]]"#, Error::InvalidJson),
        (r#"2["a"] x"#, Error::InvalidJson),
        (r#"2["a"}"#, Error::InvalidJson),
        ("2[\"a\u{1}\"]", Error::InvalidJson),
        ("2[\"a\n\"]", Error::InvalidJson),
        (r#"2["\x"]"#, Error::InvalidJson),
        ("2[NaN]", Error::InvalidJson),
        ("2[01]", Error::InvalidJson),
        ("2[,1]", Error::InvalidJson),
        ("2[\"a\"\u{a0}]", Error::InvalidJson),
    ] {
        assert_eq!(refused(text), error, "{text}");
    }
}

#[test]
fn a_number_is_a_name_as_it_was_written() {
    for (text, name) in
        [("2[1]", "1"), ("2[1,2]", "1"), ("2[ -0.5e+3 , 2]", "-0.5e+3"), ("2[0\n]", "0"), ("51-[7]", "7")]
    {
        assert_eq!(name_of(text), name, "{text}");
    }
}

#[test]
fn reserved_names_are_refused_however_they_are_written() {
    for name in RESERVED_EVENTS {
        assert_eq!(refused(&format!("2[\"{name}\"]")), Error::NameReserved);
        assert_eq!(refused(&format!("2/nsp,1[\"{name}\",1]")), Error::NameReserved);
        assert_eq!(refused(&format!("51-[\"{name}\"]")), Error::NameReserved);
    }
    assert_eq!(refused(r#"2["\u0063onnect"]"#), Error::NameReserved);
}

#[test]
fn an_ack_needs_its_id_and_may_lack_its_arguments() {
    let ack = |namespace, ack_id, data| Ok(Packet::Ack { namespace, ack_id, data, attachments: 0 });
    assert_eq!(decode("30"), ack("/", 0, "[]"));
    assert_eq!(decode("3/nsp,7"), ack("/nsp", 7, "[]"));
    assert_eq!(decode("3123[]"), ack("/", 123, "[]"));
    assert_eq!(decode("31[null,\"connect\"]"), ack("/", 1, "[null,\"connect\"]"));
    for text in ["3", "3[]", "3/nsp,", "3 [1]", "3-1[]", "61-[]"] {
        assert_eq!(refused(text), Error::AckIdMissing, "{text}");
    }
    for text in ["31{}", "31\"a\"", "31null", "31 []", "31.5[]"] {
        assert_eq!(refused(text), Error::PayloadNotArray, "{text}");
    }
    assert_eq!(refused("31["), Error::InvalidJson);
}

#[test]
fn an_ack_id_is_any_run_of_digits_up_to_64_bits() {
    let ack_id = |text: &str| match decode(text) {
        Ok(Packet::Event { ack_id, .. }) => Ok(ack_id),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    assert_eq!(ack_id("2[\"a\"]"), Ok(None));
    assert_eq!(ack_id("20[\"a\"]"), Ok(Some(0)));
    assert_eq!(ack_id("2007[\"a\"]"), Ok(Some(7)));
    assert_eq!(ack_id("218446744073709551615[\"a\"]"), Ok(Some(u64::MAX)));
    assert_eq!(ack_id("218446744073709551616[\"a\"]"), Err(Error::AckIdTooLarge));
    assert_eq!(ack_id("21000000000000000000000[\"a\"]"), Err(Error::AckIdTooLarge));
    assert_eq!(ack_id("2+1[\"a\"]"), Err(Error::PayloadNotArray));
    assert_eq!(ack_id("2٣[\"a\"]"), Err(Error::PayloadNotArray));
}

#[test]
fn other_types_are_refused() {
    assert_eq!(refused(""), Error::Empty);
    for text in ["7", "8", "9", "a", "x[\"a\"]", " 2[\"a\"]", "é", "-1", "[\"a\"]", "{}", "\0"] {
        assert_eq!(refused(text), Error::UnknownType, "{text}");
    }
}

#[test]
fn a_binary_packet_has_one_to_ten_attachments() {
    for count in 1..=ATTACHMENTS_MAX {
        assert_eq!(attachment_count(&format!("5{count}-[\"a\"]")), Ok(count), "{count}");
        assert_eq!(attachment_count(&format!("6{count}-7[]")), Ok(count), "{count}");
    }
    for (text, error) in [
        ("50-[\"a\"]", Error::AttachmentCountZero),
        ("500-[\"a\"]", Error::AttachmentCountZero),
        ("511-[\"a\"]", Error::TooManyAttachments),
        ("599999999999999999999999-[\"a\"]", Error::TooManyAttachments),
        ("5[\"a\"]", Error::AttachmentCountMalformed),
        ("5", Error::AttachmentCountMalformed),
        ("5-", Error::AttachmentCountMalformed),
        ("5-[\"a\"]", Error::AttachmentCountMalformed),
        ("5-1-[\"a\"]", Error::AttachmentCountMalformed),
        ("51[\"a\"]", Error::AttachmentCountMalformed),
        ("51", Error::AttachmentCountMalformed),
        ("5 1-[\"a\"]", Error::AttachmentCountMalformed),
        ("5+1-[\"a\"]", Error::AttachmentCountMalformed),
        ("51e0-[\"a\"]", Error::AttachmentCountMalformed),
        ("51.0-[\"a\"]", Error::AttachmentCountMalformed),
        ("50x1-[\"a\"]", Error::AttachmentCountMalformed),
        ("5/nsp,1-[\"a\"]", Error::AttachmentCountMalformed),
        ("51-", Error::PayloadMissing),
        ("51-/nsp,", Error::PayloadMissing),
        ("51-{}", Error::PayloadNotArray),
        ("60-1[]", Error::AttachmentCountZero),
        ("6[]", Error::AttachmentCountMalformed),
        ("611-1[]", Error::TooManyAttachments),
    ] {
        assert_eq!(refused(text), error, "{text}");
    }
}

#[test]
fn a_placeholder_out_of_range_is_refused() {
    for num in
        ["2", "10", "-1", "-0", "0.5", "1.0", "1e0", "\"0\"", "null", "true", "[0]", "{}", "99999999999999999999"]
    {
        let text = format!(r#"52-["a",{{"_placeholder":true,"num":{num}}}]"#);
        assert_eq!(refused(&text), Error::PlaceholderOutOfRange, "{num}");
        let text = format!(r#"62-1[[{{"deep":[{{"num":{num} ,"_placeholder": true }}]}}]]"#);
        assert_eq!(refused(&text), Error::PlaceholderOutOfRange, "{num}");
    }
    assert_eq!(refused(r#"51-["a",{"_placeholder":true}]"#), Error::PlaceholderOutOfRange);
    assert_eq!(refused(r#"51-["a",{"\u005fplaceholder":true,"n\u0075m":1}]"#), Error::PlaceholderOutOfRange);
    assert_eq!(refused(r#"51-["a",{"__proto__":{"_placeholder":true,"num":5}}]"#), Error::PlaceholderOutOfRange);
    assert_eq!(
        refused(r#"51-["a",{"_placeholder":true,"num":0},{"_placeholder":true}]"#),
        Error::PlaceholderOutOfRange
    );
    assert_eq!(refused(r#"51-["a",{"_placeholder":true,"num":0,"num":1}]"#), Error::PlaceholderOutOfRange);
}

#[test]
fn placeholders_in_range_and_what_only_looks_like_one_are_fine() {
    for args in [
        r#"{"_placeholder":true,"num":0}"#,
        r#"{"num":1,"_placeholder":true}"#,
        "{ \"_placeholder\" : true ,\n\"num\" :\t1\n}",
        r#"{"\u005fplaceholder":true,"n\u0075m":1}"#,
        r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}"#,
        r#"{"a":[{"b":{"_placeholder":true,"num":1}}]}"#,
        r#"{"_placeholder":true,"num":7,"num":0}"#,
        r#"{"_placeholder":true,"_placeholder":false,"num":7}"#,
        r#"{"_placeholder":false,"num":7}"#,
        r#"{"_placeholder":"true","num":7}"#,
        r#"{"_placeholder":1,"num":7}"#,
        r#"{"_placeholder":[true],"num":7}"#,
        r#"{"num":7}"#,
        r#"{"x":{"_placeholder":false},"num":7}"#,
        r#"{"_placeholder":{"_placeholder":true,"num":0},"num":7}"#,
        r#""{\"_placeholder\":true,\"num\":7}""#,
        r#""_placeholder",true,"num",7"#,
        r#"{"\ud800":"\udfff","_placeholder":true,"num":1e999,"num":0}"#,
    ] {
        let text = format!(r#"52-["a",{args}]"#);
        assert!(decode(&text).is_ok(), "{args}");
    }
}

#[test]
fn a_placeholder_in_a_plain_packet_is_an_object_like_any_other() {
    let data = r#"["a",{"_placeholder":true,"num":99}]"#;
    assert_eq!(decode(&format!("2{data}")), Ok(event_packet("a", data)));
    assert!(decode(r#"31[{"_placeholder":true}]"#).is_ok());
}

#[test]
fn a_plain_event_borrows_everything() {
    let text = String::from(r#"2/nsp,["name",{"a":"b"}]"#);
    let Ok(Packet::Event { name, data, .. }) = decode(&text) else { panic!("an event") };
    assert!(matches!(name, Cow::Borrowed(_)));
    assert_eq!(data.as_ptr(), text["2/nsp,".len()..].as_ptr());
}

// ---- Arguments ------------------------------------------------------------------------------------------------------

#[test]
fn arguments_are_the_texts_of_the_elements() {
    let split = |data| split_args(data).map(|args| args.into_iter().map(RawValue::get).collect::<Vec<_>>());
    assert_eq!(split("[]"), Ok(vec![]));
    assert_eq!(split(r#"["a"]"#), Ok(vec![r#""a""#]));
    assert_eq!(
        split(" [ \"a,]\" ,{\"b\" : [1, 2]},\n[[]],1e999,\"\\ud800\" ] "),
        Ok(vec!["\"a,]\"", "{\"b\" : [1, 2]}", "[[]]", "1e999", "\"\\ud800\""])
    );
    assert_eq!(split("{}"), Err(Error::PayloadNotArray));
    assert_eq!(split(""), Err(Error::PayloadNotArray));
    assert_eq!(split("[1"), Err(Error::InvalidJson));
    assert_eq!(split("[1]2"), Err(Error::InvalidJson));
    assert_eq!(split("[1,]"), Err(Error::InvalidJson));
}

// ---- Depth ----------------------------------------------------------------------------------------------------------

/// Runs on a stack that would not hold even a thousand frames of a recursive parser.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().stack_size(64 * 1024).spawn(work).expect("a thread");
    thread.join().expect("no overflow and no panic");
}

#[test]
fn four_hundred_thousand_nested_arrays_do_not_overflow() {
    on_a_small_stack(|| {
        let nested = "[".repeat(400_000) + &"]".repeat(400_000);
        for head in ["2", "51-"] {
            let text = format!("{head}[\"deep\",{nested}]");
            let Ok(Packet::Event { data, .. }) = decode(&text) else { panic!("valid, if strange") };
            assert_eq!(split_args(data).expect("an array").len(), 2);
        }
        assert_eq!(refused(&format!("2{nested}")), Error::NameWrongType);
        assert_eq!(refused(&format!("2[\"a\",{}", "[".repeat(400_000))), Error::InvalidJson);
        assert!(decode(&format!("61-1{nested}")).is_ok());
    });
}

/// Quadratic work would make this test take minutes instead of milliseconds.
#[test]
fn nested_keys_of_placeholders_are_each_looked_at_once() {
    on_a_small_stack(|| {
        for key in ["\"num\":", "\"_placeholder\":", "\"\\u006eum\" \n:\t "] {
            let open = format!("{{{key}").repeat(100_000);
            assert!(decode(&format!("51-[\"a\",{open}0{}]", "}".repeat(100_000))).is_ok());
        }
    });
}

#[test]
fn the_deepest_placeholder_is_found() {
    on_a_small_stack(|| {
        let nest = |num| {
            let open = r#"{"_placeholder":false,"x":"#.repeat(30_000);
            format!(r#"51-["a",{open}{{"_placeholder":true,"num":{num}}}{}]"#, "}".repeat(30_000))
        };
        assert!(decode(&nest(0)).is_ok());
        assert_eq!(refused(&nest(1)), Error::PlaceholderOutOfRange);
    });
}

// ---- Encoders -------------------------------------------------------------------------------------------------------

#[test]
fn encoders_write_what_the_reference_writes() {
    let text = |prepared: Prepared| String::from_utf8(prepared.packet().to_vec()).expect("text");
    assert_eq!(text(connect("/", r#"{"sid":"a"}"#)), r#"40{"sid":"a"}"#);
    assert_eq!(text(connect("/nsp", r#"{"sid":"a"}"#)), r#"40/nsp,{"sid":"a"}"#);
    assert_eq!(text(disconnect("/")), "41");
    assert_eq!(text(disconnect("/nsp")), "41/nsp,");
    assert_eq!(
        text(connect_error("/random", r#"{"message":"Invalid namespace"}"#)),
        r#"44/random,{"message":"Invalid namespace"}"#
    );
    assert_eq!(text(event("/", None, r#"["a",1]"#, &[])), r#"42["a",1]"#);
    assert_eq!(text(event("/nsp", Some(0), r#"["a"]"#, &[])), r#"42/nsp,0["a"]"#);
    assert_eq!(text(ack("/", 7, "[]", &[])), "437[]");
    assert_eq!(text(ack("/nsp", u64::MAX, "[1]", &[])), "43/nsp,18446744073709551615[1]");
}

#[test]
fn an_event_with_attachments_is_a_binary_event_and_then_the_attachments() {
    let data = r#"["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    let attachments = [Bytes::from_static(b"xyz"), Bytes::new()];
    let prepared = event("/nsp", Some(3), data, &attachments);
    assert_eq!(prepared.packet(), format!("452-/nsp,3{data}").as_bytes());
    assert_eq!(prepared.attachments().collect::<Vec<_>>(), [b"xyz".as_slice(), b""]);
    assert_eq!(ack("/", 3, data, &attachments).packet(), format!("462-3{data}").as_bytes());
}

#[test]
fn ten_attachments_fit() {
    let attachments = vec![Bytes::from_static(b"x"); ATTACHMENTS_MAX];
    assert_eq!(event("/", None, "[\"a\"]", &attachments).packet(), b"4510-[\"a\"]");
}

#[test]
#[should_panic(expected = "11 attachments")]
fn an_eleventh_attachment_is_the_callers_bug() {
    event("/", None, "[\"a\"]", &vec![Bytes::new(); ATTACHMENTS_MAX + 1]);
}

// ---- Assembler ------------------------------------------------------------------------------------------------------

const PLAIN: &str = r#"2["plain"]"#;

fn owing(attachments: usize) -> String {
    format!(r#"5{attachments}-/nsp,["bin",{{"_placeholder":true,"num":0}}]"#)
}

#[test]
fn an_idle_assembler_is_one_pointer() {
    assert_eq!(size_of::<Assembler>(), 8);
    assert_eq!(Assembler::default().bytes(), 0);
}

#[test]
fn plain_packets_pass_through() {
    let mut assembler = Assembler::default();
    for _ in 0..3 {
        assert_eq!(assembler.text(PLAIN), Ok(Some(event_packet("plain", r#"["plain"]"#))));
        assert_eq!(assembler.bytes(), 0);
    }
}

#[test]
fn a_packet_is_given_with_its_last_attachment() {
    for owed in 1..=ATTACHMENTS_MAX {
        let mut assembler = Assembler::default();
        let text = owing(owed);
        assert_eq!(assembler.text(&text), Ok(None));
        for index in 1..owed {
            assert_eq!(assembler.binary(&[index as u8]), Ok(None));
            assert_eq!(assembler.bytes(), text.len() + index);
        }
        let whole = assembler.binary(b"last").expect("owed").expect("whole");
        assert_eq!(whole.packet(), decode(&text).expect("valid"));
        assert_eq!(whole.attachments.len(), owed);
        assert_eq!(whole.attachments.last().map(Bytes::as_ref), Some(b"last".as_slice()));
        assert_eq!(assembler.bytes(), 0, "idle again");
        assert!(assembler.text(PLAIN).is_ok());
    }
}

#[test]
fn a_binary_ack_is_gathered_too() {
    let mut assembler = Assembler::default();
    assert_eq!(assembler.text("61-12"), Ok(None));
    let whole = assembler.binary(b"").expect("owed").expect("whole");
    assert_eq!(whole.packet(), Packet::Ack { namespace: "/", ack_id: 12, data: "[]", attachments: 1 });
    assert_eq!(whole.attachments, [Bytes::new()]);
}

#[test]
fn a_placeholder_out_of_range_is_refused_before_anything_is_gathered() {
    let mut assembler = Assembler::default();
    let error = assembler.text(r#"51-["a",{"_placeholder":true,"num":1}]"#);
    assert_eq!(error, Err(Error::PlaceholderOutOfRange));
    assert_eq!(assembler.binary(b"x"), Err(Error::NoAttachmentOwed));
}

/// Every order of inputs up to a length, against the plain words of the specification.
#[test]
fn every_order_of_text_and_binary_follows_the_rules() {
    const INPUTS: usize = 5;
    const LENGTH: u32 = 6;
    for order in 0..INPUTS.pow(LENGTH) {
        let mut assembler = Assembler::default();
        let mut owed = 0;
        for step in 0..LENGTH {
            let input = order / INPUTS.pow(step) % INPUTS;
            let what = format!("order {order}, step {step}");
            match input {
                0 => {
                    let result = assembler.binary(b"x").map(|whole| whole.is_some());
                    assert_eq!(result, if owed == 0 { Err(Error::NoAttachmentOwed) } else { Ok(owed == 1) }, "{what}");
                    owed = usize::saturating_sub(owed, 1);
                }
                1 => {
                    let result = assembler.text("nonsense").map(|packet| packet.is_some());
                    let error = if owed > 0 { Error::AttachmentsOwed } else { Error::UnknownType };
                    assert_eq!(result, Err(error), "{what}");
                }
                _ => {
                    let attachments = input - 2;
                    let text = if attachments == 0 { PLAIN.into() } else { owing(attachments) };
                    let result = assembler.text(&text).map(|packet| packet.is_some());
                    let expected = if owed > 0 { Err(Error::AttachmentsOwed) } else { Ok(attachments == 0) };
                    assert_eq!(result, expected, "{what}");
                    owed = if owed > 0 { owed } else { attachments };
                }
            }
            assert_eq!(assembler.bytes() > 0, owed > 0, "{what}: kept while owed, and only then");
        }
    }
}

// ---- By chance ------------------------------------------------------------------------------------------------------

/// Pieces that packets are made of, so that random text gets past the first character.
const PIECES: [&str; 42] = [
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "10",
    "99",
    "-",
    "/",
    "/nsp",
    ",",
    ":",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "\\",
    "\\u",
    "\\ud83d",
    "\\ude00",
    "d800",
    "null",
    "true",
    "false",
    "1e5",
    ".",
    " ",
    "\n",
    "é",
    "😀",
    "\u{1e}",
    "\u{0}",
    "\"connect\"",
    "[\"a\"",
    "\"_placeholder\":true",
    "\"num\":0",
    "\"num\":3",
    "{\"_placeholder\":true,\"num\":0}",
];

/// Valid JSON, with whitespace where it may be.
fn random_json(random: &mut Random, depth: usize) -> String {
    let blank = *random.pick(&["", "", "", " ", "\n", "\t "]);
    let value = match random.below(if depth == 0 { 5 } else { 8 }) {
        0 => random.pick(&["null", "true", "false"]).to_string(),
        1 => random.pick(&["0", "-1", "12", "0.5", "1e999", "-2E-3", "123456789012345678901234567890"]).to_string(),
        2..=4 => random_string(random),
        5 | 6 => format!("[{}]", random_members(random, |random| random_json(random, depth - 1))),
        _ => {
            let member = |random: &mut Random| {
                let key = random_string(random);
                format!("{key}{blank}:{}", random_json(random, depth - 1))
            };
            format!("{{{blank}{}}}", random_members(random, member))
        }
    };
    format!("{blank}{value}{blank}")
}

fn random_members(random: &mut Random, mut member: impl FnMut(&mut Random) -> String) -> String {
    let count = random.below(4);
    (0..count).map(|_| member(random)).collect::<Vec<_>>().join(",")
}

fn random_string(random: &mut Random) -> String {
    let pieces =
        ["a", "b", "é", "😀", " ", "\\n", "\\\\", "\\\"", "\\u00e9", "\\ud83d\\ude00", "{", "]", ",", ":", "num"];
    format!("\"{}\"", random.text(&pieces, 6))
}

fn random_namespace(random: &mut Random) -> String {
    format!("/{}", random.text(&["a", "é", "/", "-", "[", "1", "?x=1", "{}"], 3))
}

fn random_ack_id(random: &mut Random) -> u64 {
    let bits = random.below(64);
    random.next() >> bits
}

/// A name literal that is allowed, and what it says.
fn random_name(random: &mut Random) -> (String, String) {
    if random.one_in(8) {
        let number = random_ack_id(random).to_string();
        return (number.clone(), number);
    }
    let literal = random_string(random);
    let name = serde_json::from_str(&literal).expect("whole surrogate pairs only");
    (literal, name)
}

/// Event data: the name, random arguments, and one placeholder for each attachment.
fn random_data(random: &mut Random, first: Option<&str>, attachments: usize) -> String {
    let arguments = random.below(3);
    let mut elements: Vec<String> = first.map(String::from).into_iter().collect();
    elements.extend((0..arguments).map(|_| random_json(random, 3)));
    elements.extend((0..attachments).map(|num| format!(r#"[{{"_placeholder":true,"num":{num}}}]"#)));
    format!("[{}]", elements.join(","))
}

fn random_attachments(random: &mut Random) -> Vec<Bytes> {
    let count = if random.one_in(2) { 0 } else { random.below(ATTACHMENTS_MAX + 1) };
    (0..count).map(|_| random.bytes(40).into()).collect()
}

/// Sends a prepared packet through an assembler, as a WebSocket would, and gives what came out to `check`.
fn receive(prepared: &Prepared, check: impl FnOnce(Packet<'_>, &[Bytes])) {
    let mut assembler = Assembler::default();
    match assembler.text(socketio_text(prepared)).expect("valid") {
        Some(packet) => check(packet, &[]),
        None => {
            let results: Vec<_> = prepared.attachments().map(|data| assembler.binary(data).expect("owed")).collect();
            let (last, before) = results.split_last().expect("something was owed");
            assert!(before.iter().all(Option::is_none), "only the last attachment completes the packet");
            let whole = last.as_ref().expect("whole");
            check(whole.packet(), &whole.attachments);
        }
    }
    assert_eq!(assembler.bytes(), 0);
}

#[test]
fn whatever_event_encodes_decodes_back() {
    fuzz(2_000, |random| {
        let namespace = random_namespace(random);
        let ack_id = random.one_in(2).then(|| random_ack_id(random));
        let (literal, name) = random_name(random);
        let attachments = random_attachments(random);
        let data = random_data(random, Some(&literal), attachments.len());
        receive(&event(&namespace, ack_id, &data, &attachments), |packet, received| {
            let name = Cow::Borrowed(name.as_str());
            let attachments = attachments.len();
            let expected = Packet::Event { namespace: &namespace, ack_id, name, data: &data, attachments };
            assert_eq!(packet, expected);
            assert_eq!(received.len(), attachments);
        });
    });
}

#[test]
fn whatever_ack_encodes_decodes_back() {
    fuzz(1_000, |random| {
        let namespace = random_namespace(random);
        let ack_id = random_ack_id(random);
        let attachments = random_attachments(random);
        let data = random_data(random, None, attachments.len());
        receive(&ack(&namespace, ack_id, &data, &attachments), |packet, received| {
            let expected = Packet::Ack { namespace: &namespace, ack_id, data: &data, attachments: attachments.len() };
            assert_eq!(packet, expected);
            assert_eq!(received, attachments);
        });
    });
}

#[test]
fn connects_and_disconnects_decode_back() {
    fuzz(500, |random| {
        let namespace = random_namespace(random);
        let object = format!(r#"{{"auth":{}}}"#, random_json(random, 3));
        for auth in [None, Some(object.as_str())] {
            let packet = Packet::Connect { namespace: &namespace, auth };
            assert_eq!(decode(socketio_text(&client::connect(&namespace, auth))), Ok(packet));
        }
        let packet = Packet::ConnectError { namespace: &namespace, data: &object };
        assert_eq!(decode(socketio_text(&connect_error(&namespace, &object))), Ok(packet));
        let packet = Packet::Disconnect { namespace: &namespace };
        assert_eq!(decode(socketio_text(&disconnect(&namespace))), Ok(packet));
    });
}

#[test]
fn arguments_split_into_what_was_joined() {
    fuzz(1_000, |random| {
        let count = random.below(6);
        let elements: Vec<String> = (0..count).map(|_| random_json(random, 3)).collect();
        let data = format!("[{}]", elements.join(","));
        let split: Vec<_> = split_args(&data).expect("valid").into_iter().map(RawValue::get).collect();
        let trimmed: Vec<_> = elements.iter().map(|element| element.trim_ascii()).collect();
        assert_eq!(split, trimmed);
    });
}

/// Whatever is accepted must be something that the encoders could have written, up to how numbers and blanks are
/// written in front of the data.
fn survives_a_second_journey(text: &str) {
    let Ok(packet) = decode(text) else { return };
    let attachments = vec![Bytes::new(); packet.attachments()];
    let again = match packet {
        Packet::Connect { namespace, auth } => client::connect(namespace, auth),
        Packet::Disconnect { namespace } => disconnect(namespace),
        Packet::Event { namespace, ack_id, data, .. } => event(namespace, ack_id, data, &attachments),
        Packet::Ack { namespace, ack_id, data, .. } => ack(namespace, ack_id, data, &attachments),
        Packet::ConnectError { namespace, data } => connect_error(namespace, data),
    };
    assert_eq!(decode(socketio_text(&again)), Ok(packet), "{text:?}");
}

#[test]
fn no_input_panics_and_what_is_accepted_survives_a_second_journey() {
    fuzz(20_000, |random| survives_a_second_journey(&random.text(&PIECES, 16)));
}

#[test]
fn no_mutation_of_a_valid_packet_panics() {
    fuzz(5_000, |random| {
        let attachments = random_attachments(random);
        let (literal, _) = random_name(random);
        let data = random_data(random, Some(&literal), attachments.len());
        let prepared = event(&random_namespace(random), Some(1), &data, &attachments);
        survives_a_second_journey(&random.mutated(socketio_text(&prepared), &PIECES));
    });
}

#[test]
fn every_cut_of_a_packet_is_refused_or_survives_a_second_journey() {
    let texts = [
        r#"2/nsp,12["na\u00e9me",{"a":[1,-2.5e3,"é"]},null]"#.to_string(),
        r#"52-/nsp,12["a",{"_placeholder":true,"num":0},{"x":{"_placeholder":true,"num":1}}]"#.to_string(),
        r#"61-/é,7[{"_placeholder":true,"num":0}]"#.to_string(),
        r#"0/nsp,{"token":"x"}"#.to_string(),
        "1/nsp,".to_string(),
    ];
    for text in &texts {
        for (cut, _) in text.char_indices() {
            survives_a_second_journey(&text[..cut]);
            survives_a_second_journey(&text[cut..]);
        }
    }
}

#[test]
fn an_assembler_never_panics_and_never_keeps_more_than_it_is_owed() {
    fuzz(1_000, |random| {
        let mut assembler = Assembler::default();
        for _ in 0..30 {
            if random.one_in(2) {
                let _ = assembler.binary(&random.bytes(5));
            } else {
                let count = random.below(4).to_string();
                let _ = assembler.text(&random.mutated(&format!("5{count}-[\"a\"]"), &PIECES));
            }
            let within = |gathering: &Gathering| gathering.attachments.len() < gathering.owed;
            assert!(assembler.gathering.as_deref().is_none_or(within));
        }
    });
}

//! What the tables cannot show: round trips, errors, random input.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::beside::BESIDE;
use super::decode::PROBLEM_CHARS_MAX;
use super::*;

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct Goal {
    player: String,
    minute: Option<u32>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Pair(u8, String);

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Meters(u32);

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct WrappedPair((u8, u8));

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Unit;

#[derive(Serialize, Deserialize, PartialEq, Debug)]
pub(super) enum Shape {
    Point,
    Circle(u8),
    Line(u8, u8),
    Image { pixels: Binary },
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(tag = "type")]
pub(super) enum Tagged {
    Image { name: String, pixels: Binary },
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(untagged)]
pub(super) enum Untagged {
    Image { pixels: Binary },
    Text(String),
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
pub(super) struct Flat {
    name: String,
    #[serde(flatten)]
    image: BTreeMap<String, Binary>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Nested {
    map: BTreeMap<String, Binary>,
    list: Vec<Binary>,
    maybe: Option<Binary>,
    pair: (Binary, u8),
    shape: Shape,
    foreign: Bytes,
}

pub(super) fn bin(bytes: &'static [u8]) -> Binary {
    Binary::from(bytes)
}

pub(super) fn parts(parts: &[&'static [u8]]) -> Vec<Bytes> {
    parts.iter().map(|part| Bytes::from_static(part)).collect()
}

fn text<T: Serialize + ?Sized>(args: &T) -> String {
    let packet = encode_event("ev", args).unwrap();
    assert!(packet.attachments.is_empty());
    packet.data
}

fn event<T: DeserializeOwned>(data: &str) -> Result<T, DecodeError> {
    decode_event(data, &[])
}

#[track_caller]
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(args: &T) {
    let packet = encode_event("ev", args).unwrap();
    assert_eq!(decode_event::<T>(&packet.data, &packet.attachments).as_ref(), Ok(args), "{packet:?}");
    let packet = encode_ack(args).unwrap();
    assert_eq!(decode_ack::<T>(&packet.data, &packet.attachments).as_ref(), Ok(args), "{packet:?}");
}

#[test]
fn a_tuple_is_several_arguments_unit_is_none_and_anything_else_is_one() {
    let goal = Goal { player: "Ada".into(), minute: None };
    assert_eq!(text(&()), r#"["ev"]"#);
    assert_eq!(text(&(1, "two")), r#"["ev",1,"two"]"#);
    assert_eq!(text(&Pair(1, "two".into())), r#"["ev",1,"two"]"#);
    assert_eq!(text(&[1, 2]), r#"["ev",1,2]"#);
    assert_eq!(text(&[0; 0]), r#"["ev"]"#);
    assert_eq!(text(&vec![1, 2]), r#"["ev",[1,2]]"#);
    assert_eq!(text(&[1, 2][..]), r#"["ev",[1,2]]"#);
    assert_eq!(text(&Vec::<u8>::new()), r#"["ev",[]]"#);
    assert_eq!(text(&((1, 2),)), r#"["ev",[1,2]]"#);
    assert_eq!(text(&(Vec::<u8>::new(), 1, ((),), ())), r#"["ev",[],1,[null],null]"#);
    assert_eq!(text(&Some((1, 2))), r#"["ev",[1,2]]"#);
    assert_eq!(text(&None::<u8>), r#"["ev",null]"#);
    assert_eq!(text(&Meters(5)), r#"["ev",5]"#);
    assert_eq!(text(&WrappedPair((1, 2))), r#"["ev",1,2]"#);
    assert_eq!(text(&(WrappedPair((1, 2)), 3)), r#"["ev",[1,2],3]"#);
    assert_eq!(text(&Unit), r#"["ev",null]"#);
    assert_eq!(text("str"), r#"["ev","str"]"#);
    assert_eq!(text("["), r#"["ev","["]"#);
    assert_eq!(text(&("[", "[")), r#"["ev","[","["]"#);
    assert_eq!(text(&'c'), r#"["ev","c"]"#);
    assert_eq!(text(&true), r#"["ev",true]"#);
    assert_eq!(text(&-1.5), r#"["ev",-1.5]"#);
    assert_eq!(text(&format_args!("{}-{}", 1, 2)), r#"["ev","1-2"]"#);
    assert_eq!(text(&goal), r#"["ev",{"player":"Ada","minute":null}]"#);
    assert_eq!(text(&(&goal, Some(&goal.player))), r#"["ev",{"player":"Ada","minute":null},"Ada"]"#);
    assert_eq!(text(&BTreeMap::from([(1, 2)])), r#"["ev",{"1":2}]"#);
    assert_eq!(text(&Shape::Point), r#"["ev","Point"]"#);
    assert_eq!(text(&Shape::Circle(1)), r#"["ev",{"Circle":1}]"#);
    assert_eq!(text(&Shape::Line(1, 2)), r#"["ev",{"Line":[1,2]}]"#);
    assert_eq!(text(&json!({"a": [1, null]})), r#"["ev",{"a":[1,null]}]"#);
    assert_eq!(text(&RawValue::from_string("[ 1 ]".into()).unwrap()), r#"["ev",[ 1 ]]"#);
    assert_eq!(encode_ack(&()).unwrap().data, "[]");
    assert_eq!(encode_ack(&(1, "two")).unwrap().data, r#"[1,"two"]"#);
    assert_eq!(encode_ack(&vec![1]).unwrap().data, "[[1]]");
}

#[test]
fn decoding_follows_the_same_rule() {
    assert_eq!(event(r#"["ev"]"#), Ok(()));
    assert_eq!(event(r#"["ev",1]"#), Ok(()));
    assert_eq!(event(r#"["pub","xxx"]"#), Ok("xxx".to_string()));
    assert_eq!(event(r#"["ev",1,"two"]"#), Ok((1, "two".to_string())));
    assert_eq!(event(r#"["ev",1,"two"]"#), Ok(Pair(1, "two".into())));
    assert_eq!(event(r#"["ev",1,2]"#), Ok([1, 2]));
    assert_eq!(event(r#"["ev",[1,2],3]"#), Ok(vec![1, 2]));
    assert_eq!(event(r#"["ev",[1,2]]"#), Ok(((1, 2),)));
    assert_eq!(event(r#"["ev",[1,2]]"#), Ok(Some((1, 2))));
    assert_eq!(event(r#"["ev",5,6]"#), Ok(Meters(5)));
    assert_eq!(event(r#"["ev",1,2]"#), Ok(WrappedPair((1, 2))));
    assert_eq!(event(r#"["ev",[1,2],3]"#), Ok((WrappedPair((1, 2)), 3)));
    assert_eq!(event(r#"["ev",null]"#), Ok(Unit));
    assert_eq!(event(" [ 7 , { \"player\" : \"Ada\" } ] "), Ok(Goal { player: "Ada".into(), minute: None }));
    assert_eq!(event(r#"["ev",{"Line":[1,2]}]"#), Ok(Shape::Line(1, 2)));
    assert_eq!(event(r#"["ev",{"a":1}]"#), Ok(json!({"a": 1})));
    assert_eq!(event::<Box<RawValue>>(r#"["ev",{"a": 1}]"#).unwrap().get(), r#"{"a": 1}"#);
    assert_eq!(decode_ack(r#"["ok",3]"#, &[]), Ok(("ok".to_string(), 3)));
    assert_eq!(decode_ack(r#"[3,4]"#, &[]), Ok(3));
}

#[test]
fn extra_arguments_are_ignored_and_missing_ones_are_absent() {
    assert_eq!(event(r#"["ev",1,"two",{"three":[4]}]"#), Ok((1, "two".to_string())));
    assert_eq!(event(r#"["ev",1]"#), Ok((1, None::<String>, None::<u8>)));
    assert_eq!(event(r#"["ev"]"#), Ok(None::<String>));
    assert_eq!(event(r#"["ev"]"#), Ok(Value::Null));
    assert_eq!(event(r#"["ev",1]"#), Ok((1, Value::Null, (), Unit)));
    assert_eq!(event(r#"["ev",null]"#), Ok(None::<String>));
    assert_eq!(event(r#"[]"#), Ok(None::<String>));
    assert_eq!(event(""), Ok(None::<String>));
    assert_eq!(decode_ack("", &[]), Ok(()));
    assert_eq!(event::<Meters>(r#"["ev"]"#), Err(DecodeError::Missing { position: 0 }));
    assert_eq!(event::<(u8, u8)>(r#"["ev",1]"#), Err(DecodeError::Missing { position: 1 }));
    assert_eq!(event::<(u8, Binary)>(r#"["ev",1]"#), Err(DecodeError::Missing { position: 1 }));
    assert_eq!(event::<Box<RawValue>>(r#"["ev"]"#).unwrap_err(), DecodeError::Missing { position: 0 });
    assert_eq!(event::<(u8, Tagged)>(r#"["ev",1]"#), Err(DecodeError::Missing { position: 1 }));
}

#[test]
fn what_is_encoded_decodes_to_the_same() {
    round_trip(&());
    round_trip(&(1u8, -2i64, 3.5f64, 'c', true, "s".to_string()));
    round_trip(&(u64::MAX, i64::MIN, u128::MAX, i128::MIN));
    round_trip(&(Some(1u8), None::<u8>, Some(vec![Some(1u8), None])));
    round_trip(&((1u8, (2u8,)), [3u8, 4], ()));
    round_trip(&vec![(1u8, "\u{1F600}\"\\\n[".to_string())]);
    round_trip(&Pair(1, "a".into()));
    round_trip(&WrappedPair((1, 2)));
    round_trip(&(Unit, Meters(1)));
    round_trip(&json!({"a": {"b": [1, 2.5, "c", null, {}, []]}}));
    round_trip(&[Shape::Point, Shape::Circle(1), Shape::Line(1, 2)]);
    round_trip(&bin(b"alone"));
    round_trip(&(bin(b""), bin(b""), Bytes::from_static(b"foreign")));
    round_trip(&[Some(bin(b"some")), None]);
    round_trip(&(bin(b"a"), Untagged::Image { pixels: bin(b"b") }, Untagged::Text("c".into())));
    round_trip(&Tagged::Image { name: "cat".into(), pixels: bin(b"pixels") });
    round_trip(&Flat { name: "cat".into(), image: BTreeMap::from([("pixels".into(), bin(b"pixels"))]) });
    round_trip(&Nested {
        map: BTreeMap::from([("a".into(), bin(b"1")), ("b".into(), bin(b"2"))]),
        list: vec![bin(b"3"), bin(b"4")],
        maybe: Some(bin(b"5")),
        pair: (bin(b"6"), 6),
        shape: Shape::Image { pixels: bin(b"7") },
        foreign: Bytes::from_static(b"8"),
    });
}

#[test]
fn bytes_become_placeholders_numbered_depth_first() {
    let args = (bin(b"a"), vec![bin(b"b"), bin(b"c")], Bytes::from_static(b"d"), vec![1u8, 2]);
    let packet = encode_event("ev", &args).unwrap();
    assert_eq!(
        packet.data,
        r#"["ev",{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1},{"_placeholder":true,"num":2}],{"_placeholder":true,"num":3},[1,2]]"#
    );
    assert_eq!(packet.attachments, parts(&[b"a", b"b", b"c", b"d"]));
}

#[test]
fn foreign_bytes_are_attachments_at_every_depth() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Newtype<T>(T);
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    enum Kind {
        One(Bytes),
        Two(Bytes, Bytes),
        Named { bytes: Option<Bytes> },
    }
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Besides {
        known: Bytes,
        #[serde(flatten)]
        others: BTreeMap<String, Value>,
    }
    let x = || Bytes::from_static(b"x");
    round_trip(&x());
    round_trip(&(Newtype(x()), Newtype(Some(Newtype(vec![x(), x()])))));
    round_trip(&[Some(BTreeMap::from([(1, (x(), [x()]))])), None]);
    round_trip(&vec![Kind::One(x()), Kind::Two(x(), x()), Kind::Named { bytes: Some(x()) }]);
    round_trip(&Besides { known: x(), others: BTreeMap::from([("a".into(), json!([1]))]) });
}

#[test]
fn binary_is_never_copied() {
    let binary = Binary::from(vec![7; 1000]);
    let packet = encode_event("ev", &(Some(&binary), "x")).unwrap();
    assert_eq!(packet.attachments[0].as_ptr(), binary.as_ptr());
    let (decoded, _): (Binary, String) = decode_event(&packet.data, &packet.attachments).unwrap();
    assert_eq!(decoded.as_ptr(), binary.as_ptr());
    let all: Args = decode_event(&packet.data, &packet.attachments).unwrap();
    assert_eq!(encode_event("ev", &all).unwrap().attachments[0].as_ptr(), binary.as_ptr());
}

#[test]
fn a_placeholder_may_have_its_keys_in_any_order_and_others_besides() {
    let attachments = parts(&[b"zero", b"one"]);
    for placeholder in [
        r#"{"_placeholder":true,"num":1}"#,
        r#"{"num":1,"_placeholder":true}"#,
        r#"{ "num" : 1, "other": [{"num":7}], "\u005fplaceholder" : true }"#,
        r#"{"num":0,"_placeholder":false,"_placeholder":true,"num":1}"#,
    ] {
        let data = format!(r#"["ev",{placeholder}]"#);
        assert_eq!(decode_event(&data, &attachments), Ok(bin(b"one")), "{data}");
        assert_eq!(decode_event(&data, &attachments), Ok(Bytes::from_static(b"one")), "{data}");
        let all: Args = decode_event(&data, &attachments).unwrap();
        assert_eq!((all.attachments(), all.get(0)), (&attachments[1..], Ok(bin(b"one"))), "{data}");
        assert!(decode_event::<Args>(&data, &attachments[..1]).is_err(), "{data}");
    }
}

#[test]
fn binary_reads_nothing_but_an_attachment() {
    let attachments = parts(&[b"secret"]);
    for not_binary in [
        "null",
        "0",
        r#""text""#,
        "[1,2,3]",
        "[true,0]",
        "{}",
        r#"{"num":0}"#,
        r#"{"_placeholder":true}"#,
        r#"{"_placeholder":false,"num":0}"#,
        r#"{"_placeholder":1,"num":0}"#,
        r#"{"_placeholder":true,"num":"0"}"#,
        r#"{"_placeholder":true,"num":-1}"#,
        r#"{"_placeholder":true,"num":0.5}"#,
        r#"{"_placeholder":true,"num":null}"#,
        r#"{"_placeholder":true,"num":1}"#,
        r#"{"_placeholder":true,"num":18446744073709551616}"#,
    ] {
        let data = format!(r#"["ev",{not_binary}]"#);
        assert!(decode_event::<Binary>(&data, &attachments).is_err(), "{data}");
        assert!(decode_event::<Bytes>(&data, &attachments).is_err(), "{data}");
        assert!(decode_event::<(Binary,)>(&data, &attachments).is_err(), "{data}");
    }
    // Without attachments nothing is binary, and afterwards none are left lying around.
    let data = r#"["ev",{"_placeholder":true,"num":0}]"#;
    assert_eq!(decode_event(data, &attachments), Ok(bin(b"secret")));
    assert!(event::<Binary>(data).is_err());
    assert!(serde_json::from_str::<Binary>(r#"{"_placeholder":true,"num":0}"#).is_err());
    assert_eq!(event::<Value>(data), Ok(json!({"_placeholder": true, "num": 0})));
}

#[test]
fn decodes_and_encodes_inside_each_other_keep_their_attachments_apart() {
    #[derive(Debug)]
    struct Meddling(Binary);
    impl<'de> Deserialize<'de> for Meddling {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let data = r#"[{"_placeholder":true,"num":0}]"#;
            assert!(decode_ack::<Binary>(data, &[]).is_err());
            assert_eq!(decode_ack::<Binary>(data, &parts(&[b"inner"])), Ok(bin(b"inner")));
            assert_eq!(encode_ack(&RawValue::from_string("1".into()).unwrap()).unwrap().attachments.len(), 0);
            assert_eq!(encode_ack(&(bin(b"x"), Bytes::from_static(b"y"))).unwrap().attachments.len(), 2);
            Binary::deserialize(deserializer).map(Self)
        }
    }
    let meddling: Meddling = decode_ack(r#"[{"_placeholder":true,"num":0}]"#, &parts(&[b"outer"])).unwrap();
    assert_eq!(meddling.0, bin(b"outer"));
}

#[test]
fn a_panic_inside_a_decode_leaves_nothing_beside_serde() {
    #[derive(Debug)]
    struct Panics;
    impl<'de> Deserialize<'de> for Panics {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            std::panic::resume_unwind(Box::new("on purpose"))
        }
    }
    let attachments = parts(&[b"secret"]);
    assert!(std::panic::catch_unwind(|| decode_ack::<Panics>("[1]", &attachments)).is_err());
    BESIDE.with_borrow(|beside| assert!(beside.attachments.is_empty()));
}

#[test]
fn args_take_everything_and_give_it_back_unchanged() {
    for data in [
        r#"["echo"]"#,
        r#"["echo",1.0,1e3,-0,"\u0041",{"b" : 1,"a":2},[ ],null,123456789012345678901234567890]"#,
        r#"["echo",{"num":0,"_placeholder":true},{"deep":[{"_placeholder":true, "num":1}]}]"#,
        r#"["echo",[{"_placeholder":true,"num":1}],{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
    ] {
        let attachments = if data.contains("_placeholder") { parts(&[b"zero", b"one"]) } else { Vec::new() };
        let all: Args = decode_event(data, &attachments).unwrap();
        let again = encode_event("echo", &all).unwrap();
        assert_eq!((again.data.as_str(), &again.attachments), (data, &attachments));
        let in_tuple = encode_event("echo", &(all,)).unwrap();
        assert_eq!((in_tuple.data.as_str(), in_tuple.attachments), (data, attachments));
    }
}

#[test]
fn args_show_what_they_hold() {
    let data = r#"["ev","a",{"_placeholder":true,"num":0},{"deep":{"_placeholder":true,"num":1}},[1,2]]"#;
    let all: Args = decode_event(data, &parts(&[b"zero", b"one"])).unwrap();
    assert_eq!((all.len(), all.is_empty(), all.attachments().len()), (4, false, 2));
    assert_eq!([0, 1, 2, 3, 4].map(|position| all.is_binary(position)), [false, true, false, false, false]);
    assert_eq!(all.get(0), Ok("a".to_string()));
    assert_eq!(all.get(1), Ok(bin(b"zero")));
    assert_eq!(all.get(2), Ok(BTreeMap::from([("deep".to_string(), bin(b"one"))])));
    assert_eq!(all.get(2), Ok(BTreeMap::from([("deep".to_string(), Bytes::from_static(b"one"))])));
    assert_eq!(all.get(3), Ok((1, 2)));
    assert_eq!(all.get(4), Ok(None::<u8>));
    assert_eq!(all.get::<u8>(4), Err(DecodeError::Missing { position: 4 }));
    assert!(matches!(all.get::<u8>(3), Err(DecodeError::Argument { position: 3, .. })));
    assert_eq!((all.raw(3), all.raw(4)), (Some("[1,2]"), None));
    assert_eq!(
        all.to_values().unwrap(),
        [
            json!("a"),
            json!({"_placeholder": true, "num": 0}),
            json!({"deep": {"_placeholder": true, "num": 1}}),
            json!([1, 2])
        ]
    );
    assert!(Args::default().is_empty());
    assert_eq!(text(&Args::default()), r#"["ev"]"#);
}

#[test]
fn args_in_the_outermost_tuple_are_the_rest() {
    let (room, rest): (String, Args) = event(r#"["pub","lobby",1,[2]]"#).unwrap();
    assert_eq!((room.as_str(), text(&rest)), ("lobby", r#"["ev",1,[2]]"#.into()));
    assert_eq!(text(&("x", &rest, "y", &Args::default())), r#"["ev","x",1,[2],"y"]"#);
    let (_, rest): (String, Args) = event(r#"["pub","lobby"]"#).unwrap();
    assert_eq!(text(&(&rest, "y")), r#"["ev","y"]"#);
    let (_, rest): (Option<String>, Args) = event(r#"["pub"]"#).unwrap();
    assert!(rest.is_empty());
    // Deeper they are a list, both ways.
    let inside: Vec<Args> = event(r#"["ev",[[1,2],[]]]"#).unwrap();
    assert_eq!(text(&inside), r#"["ev",[[1,2],[]]]"#);
    assert!(event::<Option<Args>>(r#"["ev",{"a":1}]"#).is_err());
}

#[test]
fn the_rest_brings_its_own_attachments_and_no_others() {
    let data = r#"["ev",{"_placeholder":true,"num":0},"x",[{"_placeholder":true,"num":2},{"num":2,"_placeholder":true}],{"_placeholder":true,"num":1}]"#;
    let (first, rest): (Binary, Args) = decode_event(data, &parts(&[b"a", b"b", b"c"])).unwrap();
    assert_eq!(rest.attachments(), parts(&[b"b", b"c"]));
    assert_eq!(rest.get(2), Ok(bin(b"b")));
    assert_eq!(rest.get(1), Ok(vec![bin(b"c"), bin(b"c")]));
    let again = encode_event("ev", &(first, &rest, vec![&rest])).unwrap();
    assert_eq!(
        again.data,
        r#"["ev",{"_placeholder":true,"num":0},"x",[{"_placeholder":true,"num":2},{"num":2,"_placeholder":true}],{"_placeholder":true,"num":1},[["x",[{"_placeholder":true,"num":4},{"num":4,"_placeholder":true}],{"_placeholder":true,"num":3}]]]"#
    );
    assert_eq!(again.attachments, parts(&[b"a", b"b", b"c", b"b", b"c"]));

    let (_, rest): (Binary, Args) =
        decode_event(r#"["ev",{"_placeholder":true,"num":0},"x"]"#, &parts(&[b"a"])).unwrap();
    assert_eq!(text(&rest), r#"["ev","x"]"#);
}

#[test]
fn a_placeholder_that_fits_nothing_goes_no_further() {
    let stray = r#"["ev",1,{"deep":[{"_placeholder":true,"num":1}]}]"#;
    assert_eq!(
        decode_event::<Args>(stray, &parts(&[b"a"])).unwrap_err(),
        DecodeError::Argument { position: 1, problem: "a placeholder names no attachment at line 1 column 49".into() }
    );
    for num in [r#""0""#, "null", "{}", "0.5", "-1", r#"{"_placeholder":true,"num":0}"#] {
        let data = format!(r#"["ev",{{"_placeholder":true,"num":{num}}}]"#);
        assert!(decode_event::<Args>(&data, &parts(&[b"a"])).is_err(), "{data}");
    }
    // In a packet without attachments it is an ordinary object. Something binary must not give it a new meaning.
    let (look_alike, all): (Value, Args) =
        event(&stray.replace(r#"1,{"#, r#"{"_placeholder":true,"num":7},{"#)).unwrap();
    assert!(encode_event("ev", &(&look_alike, &all)).is_ok());
    assert_eq!(encode_event("ev", &(&look_alike, bin(b"a"))), Err(EncodeError::StrayPlaceholder));
    assert_eq!(encode_event("ev", &(bin(b"a"), &all)), Err(EncodeError::StrayPlaceholder));
    let in_range = json!({"_placeholder": true, "num": 0});
    assert_eq!(encode_event("ev", &(in_range, bin(b"a"))), Err(EncodeError::StrayPlaceholder));
}

#[test]
fn a_value_is_serialised_exactly_once() {
    struct Once(Cell<bool>);
    impl Serialize for Once {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            assert!(!self.0.replace(true), "serialised twice");
            serializer.collect_seq([1, 2])
        }
    }
    let once = || Once(Cell::new(false));
    assert_eq!(text(&once()), r#"["ev",[1,2]]"#);
    assert_eq!(text(&(once(), once())), r#"["ev",[1,2],[1,2]]"#);
}

#[test]
fn foreign_wrappers_that_change_bytes_get_what_they_wrote() {
    struct Reversed(Binary);
    impl Serialize for Reversed {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(&self.0.iter().rev().copied().collect::<Vec<_>>())
        }
    }
    assert_eq!(encode_ack(&Reversed(bin(b"abc"))).unwrap().attachments, parts(&[b"cba"]));
}

#[test]
fn ten_attachments_pass_and_eleven_do_not() {
    let ten = vec![bin(b"x"); 10];
    assert_eq!(encode_event("ev", &ten).unwrap().attachments.len(), 10);
    let refused = Err(EncodeError::TooManyAttachments { count: 11 });
    assert_eq!(encode_event("ev", &vec![bin(b"x"); 11]), refused);
    assert_eq!(encode_ack(&(bin(b"x"), &ten)), refused);
    let packet = encode_event("ev", &ten).unwrap();
    let all: Args = decode_event(&packet.data, &packet.attachments).unwrap();
    assert_eq!(encode_event("ev", &(bin(b"x"), all)), refused);
}

#[test]
fn reserved_names_are_refused_and_others_are_escaped() {
    for name in RESERVED_EVENTS {
        assert_eq!(encode_event(name, &1), Err(EncodeError::Reserved(name)));
    }
    for (name, data) in [
        ("error", r#"["error",1]"#),
        ("Connect", r#"["Connect",1]"#),
        ("", r#"["",1]"#),
        ("[", r#"["[",1]"#),
        ("a\"b\n\u{e9}", "[\"a\\\"b\\n\u{e9}\",1]"),
    ] {
        assert_eq!(encode_event(name, &1).unwrap().data, data);
        assert_eq!(event(data), Ok(1));
    }
}

#[test]
fn numbers_that_json_lacks_become_null() {
    assert_eq!(text(&(f64::NAN, f64::INFINITY, f32::NEG_INFINITY, 1.5)), r#"["ev",null,null,null,1.5]"#);
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    let decode_errors = [
        (
            event::<(u8, u32)>(r#"["ev",1,"two"]"#).map(drop),
            r#"argument 1: invalid type: string "two", expected u32 at line 1 column 13"#,
        ),
        (
            event::<String>(r#"["ev",{}]"#).map(drop),
            "argument 0: invalid type: map, expected a string at line 1 column 6",
        ),
        (event::<String>(r#"["ev"]"#).map(drop), "argument 0 is missing"),
        (event::<(u8, Vec<u8>)>(r#"["ev",1]"#).map(drop), "argument 1 is missing"),
        (event::<Goal>(r#"["ev",{}]"#).map(drop), "argument 0: missing field `player` at line 1 column 8"),
        (
            event::<Binary>(r#"["ev","x"]"#).map(drop),
            r#"argument 0: invalid type: string "x", expected a binary attachment at line 1 column 9"#,
        ),
        (
            event::<Binary>(r#"["ev",{}]"#).map(drop),
            "argument 0: invalid type: map, expected a binary attachment at line 1 column 8",
        ),
        (
            decode_ack::<Bytes>(r#"[{"_placeholder":true,"num":3}]"#, &parts(&[b"a"])).map(drop),
            "argument 0: there is no attachment 3, the packet has 1 at line 1 column 30",
        ),
        (event::<u8>("{}").map(drop), "the arguments are not a JSON array"),
        (event::<()>("7").map(drop), "the arguments are not a JSON array"),
        (
            event::<u8>(r#"["ev",1"#).map(drop),
            "the arguments are not valid JSON: EOF while parsing a list at line 1 column 7",
        ),
        (event::<()>(r#"["ev",1,]"#).map(drop), "the arguments are not valid JSON: trailing comma at line 1 column 9"),
        (
            event::<()>(r#"["ev"]x"#).map(drop),
            "the arguments are not valid JSON: trailing characters at line 1 column 7",
        ),
    ];
    for (result, message) in decode_errors {
        assert_eq!(result.unwrap_err().to_string(), message);
    }
    let encode_errors = [
        (encode_event("connect", &()), "the event name `connect` is reserved"),
        (encode_event("ev", &vec![bin(b"x"); 12]), "12 binary values in one packet, at most 10 are allowed"),
        (encode_event("ev", &BTreeMap::from([(vec![1], 2)])), "the arguments do not fit JSON: key must be a string"),
        (
            encode_event("ev", &(bin(b"x"), json!({"_placeholder": true}))),
            "an object looks like the placeholder of an attachment",
        ),
    ];
    for (result, message) in encode_errors {
        assert_eq!(result.unwrap_err().to_string(), message);
    }
}

#[test]
fn an_error_does_not_repeat_all_that_the_peer_sent() {
    let data = format!(r#"["ev","{}"]"#, "\u{e9}".repeat(100_000));
    let Err(DecodeError::Argument { problem, .. }) = event::<u8>(&data) else { panic!("a string is no number") };
    assert_eq!(problem.chars().count(), PROBLEM_CHARS_MAX + 1);
}

#[test]
fn json_values_keep_placeholders_as_they_are() {
    let data = r#"["ev",{"_placeholder":true,"num":0}]"#;
    assert_eq!(decode_event(data, &parts(&[b"a"])), Ok(json!({"_placeholder": true, "num": 0})));
}

#[test]
fn deep_nesting_is_an_error_and_not_an_overflow() {
    for (open, close) in [("[", "]"), (r#"{"num":"#, "}"), (r#"{"a":["#, "]}")] {
        let nested = |depth: usize| format!(r#"["ev",{}1{}]"#, open.repeat(depth), close.repeat(depth));
        assert!(event::<Value>(&nested(60)).is_ok());
        let deep = nested(100_000);
        assert!(matches!(event::<Value>(&deep), Err(DecodeError::Json(_))));
        assert!(decode_event::<Value>(&deep, &parts(&[b"a"])).is_err());
        assert!(event::<Binary>(&deep).is_err());
        assert_eq!(event(&deep), Ok(()));
        let all: Args = decode_event(&deep, &parts(&[b"a"])).unwrap();
        assert!(all.to_values().is_err());
        assert_eq!(text(&all), deep);
    }
}

#[test]
fn outside_a_packet_binary_is_what_the_format_makes_of_bytes() {
    assert_eq!(serde_json::to_string(&bin(&[1, 2])).unwrap(), "[1,2]");
    let all: Args = event(r#"["ev",1,{"a": 2}]"#).unwrap();
    assert_eq!(serde_json::to_string(&all).unwrap(), r#"[1,{"a": 2}]"#);
    assert_eq!(serde_json::from_str::<Args>("[1, 2]").unwrap().len(), 2);
}

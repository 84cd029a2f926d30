//! What the rules of rooms promise: windows, and what is retained for those who join later.

use super::super::feeds::{EVENT_BYTES, ROOM_BYTES, fate, whole_key};
use super::*;
use crate::proto::Fate;
use crate::settings::{Feed, Policy};

const EVERY: Millis = 200;

/// Rooms that begin with `window`, `retain` and `both` do what they say; so does the namespace `/kept`.
fn rules() -> Settings {
    let rule = |room: &str, window: bool, retain: bool| Feed {
        room: Some(room.into()),
        policy: Policy::Conflate,
        conflate_every: window.then(|| Duration::from_millis(EVERY)),
        retain,
        ..Feed::default()
    };
    let kept = Feed { namespace: "/kept".into(), retain: true, ..Feed::default() };
    let feeds = vec![rule("window*", true, false), rule("retain*", false, true), rule("both*", true, true), kept];
    Settings { feeds, ping_interval: Duration::from_secs(3600), ..Settings::default() }
}

/// A rule for all rooms of a namespace, with a window and retained events.
fn everywhere(namespace: &str) -> Feed {
    let conflate_every = Some(Duration::from_millis(EVERY));
    Feed { namespace: namespace.into(), room: Some("*".into()), conflate_every, retain: true, ..Feed::default() }
}

/// Where an event goes.
#[derive(Clone, Copy, Default)]
struct To<'t> {
    namespace: Option<&'t str>,
    rooms: &'t [&'t str],
    except: &'t [&'t str],
    volatile: bool,
}

fn room<'t>(name: &'t [&'t str; 1]) -> To<'t> {
    To { rooms: name, ..To::default() }
}

impl Server {
    /// Emits to a target; with a key, as the API does for an emit with a key.
    fn feed(&mut self, to: To<'_>, key: Option<&str>, data: &str) -> Arc<Prepared> {
        let boxed = |names: &[&str]| names.iter().map(|&name| name.into()).collect();
        let namespace = to.namespace.unwrap_or("/");
        let (rooms, except, volatile) = (boxed(to.rooms), boxed(to.except), to.volatile);
        let fate = key.map_or(Fate::Kept, |key| Fate::Conflated(key.into()));
        let packet = Arc::new(socketio::event(namespace, None, data, &[]).with_fate(fate));
        let target = Target { namespace: namespace.into(), rooms, except, volatile, key: key.map(Into::into) };
        self.shard.borrow_mut().broadcast(&Arc::new(target), &packet, None);
        self.turn();
        packet
    }

    /// A client in the rooms.
    fn member(&mut self, rooms: &[&str]) -> (Key<Conn>, Key<Socket>) {
        let (conn, socket) = self.joined();
        rooms.iter().for_each(|room| self.join(socket, room).expect("it is allowed"));
        self.turn();
        (conn, socket)
    }
}

// ---- windows

#[test]
fn the_first_event_leaves_at_once_and_later_ones_together_when_the_window_ends() {
    let mut server = with(rules());
    let (conn, _) = server.member(&["window"]);
    let to = room(&["window"]);
    server.feed(to, Some("a"), "[1]");
    assert_eq!(server.heard(conn), ["42[1]"]);
    for (key, data) in [("b", "[2]"), ("a", "[3]"), ("b", "[4]"), ("c", "[5]"), ("a", "[6]")] {
        server.feed(to, Some(key), data);
    }
    server.wait(EVERY - 1);
    assert!(server.heard(conn).is_empty());
    server.wait(1);
    assert_eq!(server.heard(conn), ["42[4]", "42[5]", "42[6]"], "the newest of each key, in order of last change");
    assert_eq!(server.counters().conflated_in_windows, 2);
    server.feed(to, Some("a"), "[7]");
    assert!(server.heard(conn).is_empty(), "the next window has begun");
    server.wait(EVERY);
    assert_eq!(server.heard(conn), ["42[7]"]);
    server.wait(EVERY);
    server.feed(to, Some("a"), "[8]");
    assert_eq!(server.heard(conn), ["42[8]"], "after a quiet window");
}

#[test]
fn a_client_is_written_to_once_a_window_however_much_is_emitted() {
    let mut server = with(rules());
    let (conn, _) = server.member(&["window"]);
    let mut writes = 0;
    for ms in 0..10 * EVERY {
        server.feed(room(&["window"]), Some(&format!("{}", ms % 7)), "[1]");
        server.wait(1);
        writes += usize::from(!server.heard(conn).is_empty());
    }
    assert_eq!(writes, 11, "the first one, and the end of each window");
}

#[test]
fn what_is_not_held_leaves_behind_what_is() {
    let overtaking = [
        (room(&["window"]), None),
        (To { rooms: &["window", "other"], ..To::default() }, None),
        (To { rooms: &["other", "window"], ..To::default() }, Some("a")),
        (To::default(), None),
        (To::default(), Some("a")),
    ];
    for (to, key) in overtaking {
        let mut server = with(rules());
        let (conn, _) = server.member(&["window"]);
        server.feed(room(&["window"]), Some("a"), "[1]");
        server.feed(room(&["window"]), Some("b"), "[2]");
        server.feed(to, key, "[3]");
        assert_eq!(server.heard(conn), ["42[1]", "42[2]", "42[3]"]);
        server.feed(room(&["window"]), Some("b"), "[4]");
        server.wait(EVERY - 1);
        assert!(server.heard(conn).is_empty(), "the window has begun anew");
        server.wait(1);
        assert_eq!(server.heard(conn), ["42[4]"]);
    }
}

#[test]
fn other_rooms_and_namespaces_leave_a_window_alone() {
    let mut server = with(rules());
    let (conn, _) = server.member(&["window", "window2", "plain"]);
    server.feed(room(&["window"]), Some("a"), "[1]");
    server.feed(room(&["window"]), Some("a"), "[2]");
    server.feed(room(&["window2"]), Some("a"), "[3]");
    server.feed(room(&["plain"]), Some("a"), "[4]");
    server.feed(To { namespace: Some("/kept"), ..To::default() }, None, "[5]");
    assert_eq!(server.heard(conn), ["42[1]", "42[3]", "42[4]"]);
    server.wait(EVERY);
    assert_eq!(server.heard(conn), ["42[2]"]);
}

#[test]
fn an_event_for_everyone_meets_only_what_its_own_namespace_holds() {
    let mut server = with(Settings { feeds: vec![everywhere("/"), everywhere("/prices")], ..rules() });
    let prices = To { namespace: Some("/prices"), ..To::default() };
    for name in (0..100).map(|number| number.to_string()) {
        let to = To { rooms: &[&name], ..prices };
        server.feed(to, Some("a"), "[1]");
        server.feed(to, Some("a"), "[2]");
    }
    let holding = |server: &Server| ["/", "/prices"].map(|name| server.shard.borrow().feeds.holding(name).count());
    assert_eq!(holding(&server), [0, 100]);
    server.feed(To::default(), None, "[3]");
    assert_eq!(holding(&server), [0, 100]);
    server.feed(prices, None, "[4]");
    assert_eq!(holding(&server), [0, 0]);
}

#[test]
fn an_event_replaces_only_what_was_for_the_same_receivers() {
    let mut server = with(rules());
    let ((one, first), (other, second)) = (server.member(&["window"]), server.member(&["window"]));
    let (first, second) = (server.id(first), server.id(second));
    let (but_first, but_second) = ([&*first], [&*second]);
    let to = room(&["window"]);
    server.feed(to, Some("a"), "[0]");
    server.feed(To { except: &but_first, ..to }, Some("a"), "[1]");
    server.feed(To { except: &but_second, ..to }, Some("a"), "[2]");
    server.feed(To { volatile: true, ..to }, Some("a"), "[3]");
    server.feed(To { except: &but_first, ..to }, Some("a"), "[4]");
    server.wait(EVERY);
    assert_eq!(server.heard(one), ["42[0]", "42[2]", "42[3]"]);
    assert_eq!(server.heard(other), ["42[0]", "42[3]", "42[4]"]);
}

#[test]
fn who_leaves_gets_nothing_of_what_is_held_and_who_joins_gets_all_of_it() {
    let mut server = with(rules());
    let ((leaver, leaving), (joiner, joining)) = (server.member(&["window"]), server.member(&[]));
    server.feed(room(&["window"]), Some("a"), "[1]");
    server.feed(room(&["window"]), Some("b"), "[2]");
    server.join(joining, "window").unwrap();
    server.shard.borrow_mut().leave_room(leaving, "window");
    server.wait(EVERY);
    assert_eq!(server.heard(leaver), ["42[1]"]);
    assert_eq!(server.heard(joiner), ["42[2]"]);
}

#[test]
fn a_full_window_ends_early() {
    let mut server = with(Settings { conflate_keys_max: 2, ..rules() });
    let (conn, _) = server.member(&["window"]);
    let to = room(&["window"]);
    for (key, data) in [("x", "[0]"), ("a", "[1]"), ("b", "[2]"), ("a", "[3]")] {
        server.feed(to, Some(key), data);
    }
    assert_eq!((server.heard(conn), server.counters().windows_full), (vec!["42[0]".into()], 0));
    server.feed(to, Some("c"), "[4]");
    assert_eq!((server.heard(conn).join(" "), server.counters().windows_full), ("42[2] 42[3]".into(), 1));
    server.wait(EVERY);
    assert_eq!(server.heard(conn), ["42[4]"]);
}

/// What it costs that a window holds an event with a key of one letter: a frame of two bytes and `42[…]`, and the key with
/// all that tells its target from others, which is `1:a0:` for one without exceptions that is not volatile.
fn held_bytes(data: &str) -> usize {
    2 + 2 + data.len() + 5 + EVENT_BYTES
}

#[test]
fn a_window_that_would_hold_more_than_an_outbox_ends_early() {
    let bytes_max = held_bytes("[1111]") + held_bytes("[2]");
    let mut server = with(Settings { outbox_bytes_max: bytes_max, ..rules() });
    let (conn, _) = server.member(&["window"]);
    let to = room(&["window"]);
    for (key, data) in [("x", "[0]"), ("a", "[1]"), ("b", "[2]"), ("a", "[1111]")] {
        server.feed(to, Some(key), data);
    }
    assert_eq!((server.heard(conn), server.counters().windows_full), (vec!["42[0]".into()], 0));
    server.feed(to, Some("b"), "[22]");
    assert_eq!((server.heard(conn).join(" "), server.counters().windows_full), ("42[2] 42[1111]".into(), 1));
    server.feed(to, Some("a"), "[3]");
    server.feed(to, Some("c"), "[4]");
    assert_eq!((server.heard(conn).join(" "), server.counters().windows_full), ("42[22] 42[3]".into(), 2));
    server.wait(EVERY);
    assert_eq!(server.heard(conn), ["42[4]"]);
}

#[test]
fn an_event_larger_than_an_outbox_waits_alone() {
    let mut server = with(Settings { outbox_bytes_max: held_bytes("[1]"), ..rules() });
    let (conn, _) = server.member(&["window"]);
    let to = room(&["window"]);
    for (key, data) in [("x", "[0]"), ("a", "[1]"), ("a", "[22]"), ("a", "[333]")] {
        server.feed(to, Some(key), data);
    }
    assert_eq!((server.heard(conn), server.counters().windows_full), (vec!["42[0]".into()], 0));
    server.feed(to, Some("b"), "[4]");
    assert_eq!((server.heard(conn), server.counters().windows_full), (vec!["42[333]".into()], 1));
    server.wait(EVERY);
    assert_eq!(server.heard(conn), ["42[4]"]);
}

#[test]
fn what_is_held_leaves_before_the_server_does() {
    let mut server = with(rules());
    let (conn, _) = server.member(&["window"]);
    server.feed(room(&["window"]), Some("a"), "[1]");
    server.feed(room(&["window"]), Some("a"), "[2]");
    server.shard.borrow_mut().shut_down();
    drive::hear_out(&server.shard, &server.app);
    server.turn();
    assert_eq!(server.heard(conn), ["42[1]", "42[2]", "close"]);
}

#[test]
fn when_the_server_leaves_what_its_namespaces_hold_leaves_in_the_order_in_which_they_began_to() {
    let mut server = with(Settings { feeds: vec![everywhere("/"), everywhere("/prices")], ..rules() });
    let conn = server.websocket();
    ["40", "40/prices,"].iter().for_each(|connect| server.say(conn, connect));
    let sockets = server.app.sockets.take();
    let namespaces = ["/", "/prices"].repeat(3);
    for data in ["[1]", "[2]"] {
        for (number, namespace) in namespaces.iter().enumerate() {
            let name = number.to_string();
            server.join(sockets[number % 2], &name).expect("it is allowed");
            server.feed(To { namespace: Some(namespace), rooms: &[&name], ..To::default() }, Some("a"), data);
        }
    }
    server.heard(conn);
    server.shard.borrow_mut().shut_down();
    drive::hear_out(&server.shard, &server.app);
    server.turn();
    let leaves = ["42[2]", "42/prices,[2]"].repeat(3);
    assert_eq!(server.heard(conn), [leaves, vec!["close"]].concat());
}

#[test]
fn who_is_let_go_by_a_drain_gets_what_is_held_and_who_stays_waits_for_the_window() {
    let mut server = with(rules());
    let all = To { rooms: &["window"], ..To::default() };
    let members: Vec<_> = (0..200).map(|_| server.member(&["window"])).collect();
    let excepted = server.shard.borrow().socket(members[0].1).unwrap().id.to_string();
    server.feed(all, Some("a"), "[1]");
    server.feed(all, Some("a"), "[2]");
    server.feed(To { except: &[&excepted], ..all }, Some("b"), "[3]");
    server.shard.borrow_mut().drain(10 * EVERY);
    server.wait(EVERY / 4);
    let mut let_go = 0;
    for (at, (conn, _)) in members.iter().enumerate() {
        let held: &[&str] = if at == 0 { &["42[2]"] } else { &["42[2]", "42[3]"] };
        let heard = server.heard(*conn);
        assert_eq!(heard[0], "42[1]");
        if heard.last().unwrap() == "close" {
            let_go += 1;
            assert_eq!(&heard[1..heard.len() - 1], held);
        } else {
            assert_eq!(heard.len(), 1, "{heard:?}");
        }
    }
    assert!((1..=10).contains(&let_go), "{let_go} of 200 after a fortieth of the time");
    server.wait(EVERY);
    let (stays, _) = members.iter().find(|(conn, _)| server.heard(*conn) == ["42[2]", "42[3]"]).expect("most stay");
    assert!(server.heard(*stays).is_empty(), "once is enough");
}

#[test]
fn nothing_is_held_where_nobody_is_and_nothing_is_kept_after_a_quiet_window() {
    let mut server = with(rules());
    server.feed(room(&["window"]), Some("a"), "[1]");
    assert!(server.shard.borrow().feeds.is_empty(), "nobody is in the room");
    let (_, _) = server.member(&["window"]);
    server.feed(room(&["window"]), Some("a"), "[2]");
    server.feed(room(&["plain"]), Some("a"), "[3]");
    assert!(!server.shard.borrow().feeds.is_empty());
    server.wait(EVERY);
    assert!(server.shard.borrow().feeds.is_empty());
}

// ---- retained events

#[test]
fn who_joins_gets_the_newest_of_each_key_and_from_then_on_everything() {
    let mut server = with(rules());
    for (key, data) in [("a", "[1]"), ("b", "[2]"), ("a", "[3]")] {
        server.feed(room(&["retain"]), Some(key), data);
    }
    let (conn, socket) = server.joined();
    assert!(server.heard(conn).is_empty(), "it has not joined");
    server.join(socket, "retain").unwrap();
    server.feed(room(&["retain"]), Some("b"), "[4]");
    assert_eq!(server.heard(conn), ["42[2]", "42[3]", "42[4]"]);
    server.join(socket, "retain").unwrap();
    server.turn();
    assert!(server.heard(conn).is_empty(), "it was inside already");
    server.shard.borrow_mut().leave_room(socket, "retain");
    server.feed(room(&["retain"]), Some("a"), "[5]");
    server.join(socket, "retain").unwrap();
    server.turn();
    assert_eq!(server.heard(conn), ["42[4]", "42[5]"], "it was outside, and may have missed something");
    assert_eq!(server.counters().caught_up, 4);
    assert_eq!(server.shard.borrow().census().retained, 2);
}

#[test]
fn a_retained_event_is_the_very_packet_that_was_broadcast() {
    let mut server = with(rules());
    let packet = server.feed(room(&["retain"]), Some("a"), "[1]");
    assert_eq!(Arc::strong_count(&packet), 2, "ours, and the room's");
    server.member(&["retain"]);
    assert_eq!(Arc::strong_count(&packet), 2);
    server.feed(room(&["retain"]), Some("a"), "[2]");
    assert_eq!(Arc::strong_count(&packet), 1, "a newer one has taken its place");
}

#[test]
fn what_is_held_is_not_retained_before_it_leaves() {
    let mut server = with(rules());
    server.feed(room(&["both"]), Some("a"), "[1]");
    server.feed(room(&["both"]), Some("a"), "[2]"); // nobody is there, and still it waits for the window
    server.feed(room(&["both"]), Some("b"), "[3]");
    let (conn, _) = server.member(&["both"]);
    assert_eq!(server.heard(conn), ["42[1]"]);
    server.wait(EVERY);
    assert_eq!(server.heard(conn), ["42[2]", "42[3]"]);
    let (late, _) = server.member(&["both"]);
    assert_eq!(server.heard(late), ["42[2]", "42[3]"]);
}

#[test]
fn who_joins_before_being_let_in_gets_it_behind_the_answer() {
    let mut server = with(Settings {
        feeds: vec![Feed { namespace: "/later".into(), retain: true, ..Feed::default() }],
        ..Settings::default()
    });
    let to = To { namespace: Some("/later"), rooms: &["r"], ..To::default() };
    server.feed(to, Some("a"), "[1]");
    let conn = server.websocket();
    server.say(conn, "40/later,");
    let socket = server.last_socket();
    server.join(socket, "r").unwrap();
    server.feed(To { rooms: &["r", "s"], ..to }, Some("b"), "[2]");
    server.join(socket, "s").unwrap();
    server.feed(To { rooms: &[], ..to }, Some("c"), "[3]");
    server.feed(to, Some("a"), "[4]");
    assert!(server.heard(conn).is_empty());
    assert!(server.shard.borrow_mut().accept(socket));
    server.feed(to, Some("a"), "[5]");
    let heard = server.heard(conn);
    assert!(heard[0].starts_with("40/later,{"));
    assert_eq!(heard[1..], ["42/later,[2]", "42/later,[3]", "42/later,[4]", "42/later,[5]"], "each once, in order");
}

#[test]
fn what_everyone_was_told_is_retained_for_those_who_connect() {
    let mut server = with(rules());
    server.feed(To { namespace: Some("/kept"), ..To::default() }, Some("motd"), "[1]");
    server.feed(To { namespace: Some("/kept"), ..To::default() }, Some("motd"), "[2]");
    let conn = server.websocket();
    server.say(conn, "40/kept,");
    assert_eq!(server.heard(conn)[1..], ["42/kept,[2]"]);
}

#[test]
fn an_event_to_several_rooms_is_retained_in_each_and_reaches_who_joins_them_once() {
    let mut server = with(rules());
    server.feed(To { rooms: &["retain1", "retain2", "plain"], ..To::default() }, Some("a"), "[1]");
    let (conn, socket) = server.member(&["retain1"]);
    assert_eq!(server.heard(conn), ["42[1]"]);
    server.join(socket, "retain2").unwrap();
    server.turn();
    assert!(server.heard(conn).is_empty(), "it has that one");
    server.feed(room(&["retain1"]), Some("a"), "[2]");
    let (late, later) = server.member(&["retain1"]);
    server.join(later, "retain2").unwrap();
    server.turn();
    assert_eq!(server.heard(late), ["42[2]", "42[1]"], "the newest of each room");
}

#[test]
fn who_was_excepted_is_excepted_when_joining_too() {
    let mut server = with(rules());
    let (conn, socket) = server.member(&["premium"]);
    server.feed(To { except: &["premium"], ..room(&["retain"]) }, Some("advert"), "[1]");
    server.join(socket, "retain").unwrap();
    server.turn();
    assert!(server.heard(conn).is_empty());
    let (other, _) = server.member(&["retain"]);
    assert_eq!(server.heard(other), ["42[1]"]);
}

#[test]
fn those_who_join_together_wait_for_one_copy_of_what_they_catch_up_with() {
    let mut server = with(rules());
    let retained: usize = (0..50)
        .map(|number: usize| server.feed(room(&["retain"]), Some(&number.to_string()), "[1]").websocket().len())
        .sum();
    let all: Vec<_> = (0..20).map(|_| server.joined()).collect();
    all.iter().for_each(|&(conn, _)| _ = server.pipes.room.insert(conn, 0));
    server.shard.borrow_mut().sockets_join(&Arc::new(everyone()), ["retain".into()].into());
    server.turn();
    assert_eq!(server.counters().caught_up, 20 * 50);
    let shard = server.shard.borrow();
    assert!(all.iter().all(|&(_, socket)| shard.backlog(socket) == Some((retained, 0))));
    assert_eq!(shard.waiting_bytes(), retained);
}

#[test]
fn who_joins_with_others_gets_what_it_would_get_alone() {
    let scene = || {
        let mut server = with(Settings { rooms_per_socket_max: 3, ..rules() });
        let several = |rooms| To { rooms, ..To::default() };
        server.feed(several(&["retain1", "retain2"]), Some("a"), "[1]");
        server.feed(several(&["retain2"]), Some("b"), "[2]");
        server.feed(several(&["retain1"]), Some("c"), "[3]");
        server.feed(To { except: &["premium"], ..several(&["retain2"]) }, Some("d"), "[4]");
        server.feed(several(&["retain1", "retain2", "retain3"]), Some("e"), "[5]");
        server.feed(several(&["retain1"]), Some("a"), "[6]");
        let before: [&[&str]; 6] = [&[], &["premium"], &["retain1"], &["retain2"], &["plain", "plain2"], &["retain3"]];
        let members = before.map(|rooms| server.member(rooms));
        members.iter().for_each(|&(conn, _)| drop(server.heard(conn)));
        let busy = server.id(members[0].1);
        let only = Target { rooms: vec![busy.into()], ..everyone() };
        server.shard.borrow_mut().fan_out(&only, &event("[0]")); // in the same turn
        (server, members)
    };
    let rooms = ["retain2", "retain1", "retain2", "retain3"];
    let (mut together, members) = scene();
    let boxed: Arc<[Box<str>]> = rooms.map(Into::into).into();
    together.shard.borrow_mut().sockets_join(&Arc::new(everyone()), boxed);
    let (mut alone, others) = scene();
    for (_, socket) in others {
        rooms.iter().for_each(|room| _ = alone.join(socket, room));
    }
    together.turn();
    alone.turn();
    for ((conn, _), (other, _)) in members.into_iter().zip(others) {
        assert_eq!(together.heard(conn), alone.heard(other));
    }
    assert_eq!(together.counters().caught_up, alone.counters().caught_up);
    assert_eq!(together.counters().joins_refused, alone.counters().joins_refused);
}

#[test]
fn a_room_named_by_an_id_retains_for_who_comes_back_to_it() {
    let mut server = with(Settings { feeds: vec![Feed { retain: true, ..Feed::default() }], ..Settings::default() });
    let (conn, socket) = server.joined();
    let id = server.id(socket);
    server.shard.borrow_mut().leave_room(socket, &id);
    server.feed(room(&[&id]), Some("a"), "[1]");
    server.join(socket, &id).unwrap();
    server.join(socket, &id).unwrap();
    server.turn();
    assert_eq!(server.heard(conn), ["42[1]"]);
}

#[test]
fn over_the_limit_on_keys_the_one_that_changed_longest_ago_is_forgotten() {
    let mut server = with(Settings { retain_keys_max: 2, ..rules() });
    for (key, data) in [("a", "[1]"), ("b", "[2]"), ("a", "[3]"), ("c", "[4]")] {
        server.feed(room(&["retain"]), Some(key), data);
    }
    let (conn, _) = server.member(&["retain"]);
    assert_eq!(server.heard(conn), ["42[3]", "42[4]"]);
    assert_eq!(server.counters().retained_forgotten, 1);
}

#[test]
fn a_lower_limit_on_keys_holds_when_the_room_changes_next() {
    let mut server = with(Settings { retain_keys_max: 100, ..rules() });
    (0..100).for_each(|number| _ = server.feed(room(&["retain"]), Some(&format!("{number}")), "[1]"));
    server.shard.borrow_mut().set_settings(Arc::new(Settings { retain_keys_max: 10, ..rules() }));
    server.feed(room(&["retain"]), Some("new"), "[2]");
    assert_eq!(server.shard.borrow().census().retained, 10);
    assert_eq!(server.counters().retained_forgotten, 91);
}

#[test]
fn over_the_limit_on_rooms_the_one_that_changed_longest_ago_is_forgotten() {
    let mut server = with(Settings { retain_rooms_max: 2, ..rules() });
    for (name, key) in [("retain1", "a"), ("retain2", "a"), ("retain1", "b"), ("retain3", "a")] {
        server.feed(room(&[name]), Some(key), &format!("[\"{name}\",\"{key}\"]"));
    }
    let (conn, socket) = server.member(&["retain2"]);
    assert!(server.heard(conn).is_empty());
    server.join(socket, "retain1").unwrap();
    server.turn();
    assert_eq!(server.heard(conn), [r#"42["retain1","a"]"#, r#"42["retain1","b"]"#]);
    assert_eq!(server.counters().retained_forgotten, 1);
}

#[test]
fn over_the_limit_on_bytes_rooms_are_forgotten_and_at_last_what_went_to_everyone() {
    // A frame of two bytes and `42["x"]`, and a key of one.
    let bytes = |rooms: usize, events: usize| rooms * ROOM_BYTES + events * (2 + 7 + 1 + EVENT_BYTES);
    let everyone = Feed { retain: true, ..Feed::default() };
    let mut server = with(Settings { feeds: vec![everyone], retain_bytes_max: bytes(3, 3), ..Settings::default() });
    let mut emit = |to: To<'_>, key: &str, data: &str| {
        server.feed(to, Some(key), &format!("[\"{data}\"]"));
        let conn = server.websocket();
        server.say(conn, "40");
        ["r", "s"].iter().for_each(|room| server.join(server.last_socket(), room).expect("it is allowed"));
        server.turn();
        let heard = server.heard(conn)[1..].join(" ");
        (heard, server.shard.borrow().census().retained_bytes, server.counters().retained_forgotten)
    };
    let (r, s, everyone) = (room(&["r"]), room(&["s"]), To::default());
    emit(r, "a", "1");
    emit(everyone, "a", "2");
    assert_eq!(emit(s, "a", "3"), (r#"42["2"] 42["1"] 42["3"]"#.into(), bytes(3, 3), 0));
    assert_eq!(emit(r, "b", "4"), (r#"42["2"] 42["1"] 42["4"]"#.into(), bytes(2, 3), 1), "s changed longest ago");
    assert_eq!(emit(everyone, "b", "5").0, r#"42["2"] 42["5"] 42["1"] 42["4"]"#, "there is room for one more");
    assert_eq!(emit(s, "a", "6"), (r#"42["2"] 42["5"] 42["6"]"#.into(), bytes(2, 3), 3), "r is forgotten whole");
    let large = "x".repeat(bytes(1, 1));
    assert_eq!(emit(everyone, "a", &large).0, format!("42[\"5\"] 42[\"{large}\"]"), "it takes the place of a room");
    assert_eq!(emit(everyone, "c", &large).0, format!("42[\"{large}\"]"), "what went to everyone goes last");
    assert_eq!(emit(everyone, "c", &large.repeat(9)), (String::new(), 0, 7), "it does not fit by itself");
}

#[test]
fn what_a_room_retains_can_be_forgotten_all_or_one_key_of_it() {
    let mut server = with(rules());
    let forget = |server: &mut Server, rooms: &[&str], key: Option<&str>| {
        let rooms = rooms.iter().map(|&name| name.into()).collect();
        let target = Target { namespace: "/".into(), rooms, key: key.map(Into::into), ..Target::default() };
        server.shard.borrow_mut().forget(&Arc::new(target));
        server.turn();
    };
    for key in ["a", "b", "c"] {
        server.feed(room(&["both"]), Some(key), &format!("[\"{key}\"]")); // a leaves, b and c are held
    }
    forget(&mut server, &["both", "elsewhere"], Some("b"));
    let (conn, _) = server.member(&["both"]);
    assert_eq!(server.heard(conn), [r#"42["a"]"#, r#"42["c"]"#], "what was held is emitted before");
    server.wait(2 * EVERY);
    forget(&mut server, &["both", "both"], None);
    let (conn, _) = server.member(&["both"]);
    assert!(server.heard(conn).is_empty() && server.shard.borrow().feeds.is_empty());
}

// ---- keys and fates

#[test]
fn a_key_says_what_a_policy_does_not() {
    let whole = |key: &str| Arc::from(format!("whole {key}"));
    let conflated = |key: &str| Fate::Conflated(whole(key));
    let policies = [
        (Policy::Evict, Fate::Kept),
        (Policy::DropNewest, Fate::DroppedNewest),
        (Policy::DropOldest, Fate::DroppedOldest),
        (Policy::Conflate, conflated("event")),
    ];
    for (policy, unkeyed) in policies {
        assert_eq!(fate(policy, None, "event", whole), unkeyed);
        assert_eq!(fate(policy, Some("key"), "event", whole), conflated("key"));
    }
}

#[test]
fn a_whole_key_is_that_of_no_other_target() {
    let words = ["", "a", "1:a", "/", "1:", ":", "a1:a", "\0"];
    let mut seen = HashMap::new();
    for namespace in ["/", "/a"] {
        for key in words {
            for one in words {
                for other in words {
                    for rooms in [vec![], vec![one], vec![one, other]] {
                        let names: BTreeSet<&str> = rooms.iter().copied().collect();
                        let meant = (namespace, names, key);
                        let whole = whole_key(namespace, rooms.into_iter(), key);
                        assert_eq!(seen.entry(whole).or_insert_with(|| meant.clone()), &meant);
                    }
                }
            }
        }
    }
    assert_eq!(whole_key("/", ["b", "a"].into_iter(), "k"), whole_key("/", ["a", "b", "a"].into_iter(), "k"));
}

#[test]
fn who_joins_and_leaves_in_a_loop_is_not_given_it_all_again_and_again() {
    let mut server = with(Settings { outbox_bytes_max: 100_000, ..rules() });
    for number in 0..100 {
        server.feed(room(&["retain"]), Some(&format!("{number}")), &format!("[\"{number:090}\"]"));
    }
    let (_, socket) = server.joined();
    for _ in 0..1_000 {
        let _ = server.join(socket, "retain");
        server.shard.borrow_mut().leave_room(socket, "retain");
    }
    server.turn();
    assert_eq!(server.ends(), [CloseReason::SlowClient]);
    assert!(server.counters().caught_up <= 1_100, "{}", server.counters().caught_up);
}

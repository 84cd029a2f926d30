//! Keys: publications that a publisher may repeat without sending anything twice.
//!
//! A publisher whose connection broke cannot know whether its events were sent. If it gave the request an
//! `Idempotency-Key` it simply repeats it: as long as the key is remembered, the same body gets the same answer again, and
//! nothing is sent (IETF draft "The Idempotency-Key HTTP Header Field").
//!
//! ```text
//!     begin ──▶ under way ──finish──▶ answered ──idempotency_time──▶ forgotten
//!                  └──────drop──────▶ forgotten: it was refused, and nothing was sent
//! ```
//!
//! One store for the process, whichever worker a request comes to. It is locked by publishers with a key, for a look-up.
//! It reads no clock: `now` is told.
//!
//! Invariants: `answered` has the keys that are answered, in the order of their answers, each once.
//! Limits:     `idempotency_keys_max` answered keys, of which the oldest is forgotten first; [`KEY_BYTES_MAX`] bytes each.
//!             Those under way are bounded by the gate's places.

use super::publish::Refusal;
use bytes::Bytes;
use http::HeaderMap;
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

pub const HEADER: &str = "idempotency-key";
/// A UUID has 36 characters, and what else is usual is not much longer.
pub const KEY_BYTES_MAX: usize = 255;

/// A key as the publisher chose it.
pub type Key = Arc<str>;

/// Bodies are compared by their hashes, so that they need not be kept.
type Fingerprint = [u8; 32];

pub struct Keys {
    remembered: Mutex<Remembered>,
    replayed: AtomicU64,
    forgotten: AtomicU64,
}

struct Remembered {
    time: Duration,
    keys_max: usize,
    keys: HashMap<Key, Entry>,
    answered: VecDeque<(Instant, Key)>,
}

struct Entry {
    body: Fingerprint,
    /// `None`: it is under way.
    answer: Option<Bytes>,
}

/// What a request with a key is.
pub enum Begun {
    /// The first of its kind: to be carried out.
    Anew(Ticket),
    /// A repeated one: this was the answer.
    Before(Bytes),
}

/// The duty to say how a publication ended. Dropping it says that nothing was sent.
pub struct Ticket {
    keys: Arc<Keys>,
    /// Taken when the publication is answered.
    key: Option<Key>,
}

/// The key of a request, if it has one: a string as the draft writes it, in quotes, or the bare characters.
pub fn key(headers: &HeaderMap) -> Result<Option<Key>, Refusal> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let refuse = |problem: &'static str| Err(Refusal::IdempotencyKey { problem });
    if values.next().is_some() {
        return refuse("is there twice");
    }
    let Ok(text) = std::str::from_utf8(value.as_bytes()) else { return refuse("is not ASCII") };
    let quoted = text.strip_prefix('"').map(|rest| rest.strip_suffix('"'));
    let text = match quoted {
        Some(Some(inside)) => inside,
        Some(None) => return refuse("has no quote at its end"),
        None => text,
    };
    if text.is_empty() || text.len() > KEY_BYTES_MAX {
        return refuse("is not 1 to 255 characters long");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
        return refuse("has a character that is not visible ASCII, or is a quote or a backslash");
    }
    Ok(Some(text.into()))
}

impl Keys {
    pub fn new(time: Duration, keys_max: usize) -> Arc<Keys> {
        let remembered = Remembered { time, keys_max, keys: HashMap::new(), answered: VecDeque::new() };
        let remembered = Mutex::new(remembered);
        Arc::new(Keys { remembered, replayed: AtomicU64::new(0), forgotten: AtomicU64::new(0) })
    }

    /// From now on these hold, also for what is remembered.
    pub fn set_limits(&self, time: Duration, keys_max: usize) {
        let mut remembered = self.remembered();
        (remembered.time, remembered.keys_max) = (time, keys_max);
    }

    /// Looks whether this is a repeated request.
    pub fn begin(self: &Arc<Self>, key: Key, body: &[u8], now: Instant) -> Result<Begun, Refusal> {
        let body = Sha256::digest(body).into();
        let mut remembered = self.remembered();
        remembered.forget_until(now);
        match remembered.keys.get(&key) {
            Some(entry) if entry.body != body => Err(Refusal::AnotherBody { within: remembered.time }),
            Some(Entry { answer: None, .. }) => Err(Refusal::UnderWay),
            Some(Entry { answer: Some(answer), .. }) => {
                self.replayed.fetch_add(1, Ordering::Relaxed);
                Ok(Begun::Before(answer.clone()))
            }
            None => {
                remembered.keys.insert(Arc::clone(&key), Entry { body, answer: None });
                Ok(Begun::Anew(Ticket { keys: Arc::clone(self), key: Some(key) }))
            }
        }
    }

    /// How many keys are remembered.
    pub fn count(&self) -> usize {
        self.remembered().keys.len()
    }

    /// Requests that got an answer again.
    pub fn replayed(&self) -> u64 {
        self.replayed.load(Ordering::Relaxed)
    }

    /// Keys that were forgotten before their time, because there were too many.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().expect("nothing panics while it holds this lock")
    }
}

impl Remembered {
    /// Forgets what was answered too long ago.
    fn forget_until(&mut self, now: Instant) {
        let then = now.checked_sub(self.time);
        while let (Some(then), Some((answered, _))) = (then, self.answered.front())
            && *answered <= then
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let (_, key) = self.answered.pop_front().expect("the caller has seen one");
        self.keys.remove(&key);
    }
}

impl Ticket {
    /// The publication was carried out; its answer is kept.
    pub fn finish(mut self, answer: Bytes, now: Instant) {
        let key = self.key.take().expect("finished once, as it is gone then");
        let keys = Arc::clone(&self.keys);
        let mut remembered = keys.remembered();
        remembered.keys.get_mut(&key).expect("it is under way").answer = Some(answer);
        remembered.answered.push_back((now, key));
        remembered.forget_until(now);
        while remembered.answered.len() > remembered.keys_max {
            remembered.forget_oldest();
            keys.forgotten.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.keys.remembered().keys.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const TIME: Duration = Duration::from_secs(300);

    /// `anew`, the answer of before, or the refusal. Anew, it is answered at once.
    fn publish(keys: &Arc<Keys>, key: &str, body: &str, answer: &'static str, now: Instant) -> String {
        match keys.begin(key.into(), body.as_bytes(), now) {
            Ok(Begun::Anew(ticket)) => {
                ticket.finish(answer.into(), now);
                "anew".into()
            }
            Ok(Begun::Before(answer)) => String::from_utf8(answer.to_vec()).unwrap(),
            Err(refusal) => format!("{refusal:?}"),
        }
    }

    #[test]
    fn a_repeated_request_gets_the_answer_of_the_first_until_its_time_is_over() {
        let (keys, start) = (Keys::new(TIME, 10), Instant::now());
        assert_eq!(publish(&keys, "a", "body", "one", start), "anew");
        let almost = start + TIME - Duration::from_nanos(1);
        assert_eq!(publish(&keys, "a", "body", "two", almost), "one");
        assert_eq!(publish(&keys, "b", "body", "three", almost), "anew", "another key is another request");
        assert_eq!((keys.replayed(), keys.count()), (1, 2));
        assert_eq!(publish(&keys, "a", "body", "four", start + TIME), "anew");
        assert_eq!(publish(&keys, "b", "body", "five", start + TIME), "three");
        assert_eq!(keys.forgotten(), 0, "nothing was forgotten before its time");
    }

    #[test]
    fn a_key_is_for_one_body() {
        let (keys, now) = (Keys::new(TIME, 10), Instant::now());
        assert_eq!(publish(&keys, "a", "body", "one", now), "anew");
        assert_eq!(publish(&keys, "a", "body ", "two", now), "AnotherBody { within: 300s }");
        assert_eq!(publish(&keys, "a", "body", "three", now), "one");
    }

    #[test]
    fn what_is_under_way_is_not_begun_again_and_what_was_refused_may_be() {
        let (keys, now) = (Keys::new(TIME, 10), Instant::now());
        let Ok(Begun::Anew(ticket)) = keys.begin("a".into(), b"body", now) else { panic!("it is the first") };
        assert_eq!(publish(&keys, "a", "body", "one", now + 2 * TIME), "UnderWay", "however long it takes");
        assert_eq!(publish(&keys, "a", "other", "one", now), "AnotherBody { within: 300s }");
        drop(ticket);
        assert_eq!(keys.count(), 0);
        assert_eq!(publish(&keys, "a", "other", "two", now), "anew");
    }

    #[test]
    fn of_too_many_keys_the_oldest_answer_is_forgotten_and_counted() {
        let (keys, now) = (Keys::new(TIME, 2), Instant::now());
        let Ok(Begun::Anew(slow)) = keys.begin("slow".into(), b"body", now) else { panic!("it is the first") };
        for key in ["a", "b", "c"] {
            assert_eq!(publish(&keys, key, "body", key, now), "anew");
        }
        assert_eq!((keys.forgotten(), keys.count()), (1, 3), "the one under way is no answer yet");
        slow.finish("slow".into(), now);
        assert_eq!((keys.forgotten(), keys.count()), (2, 2));
        assert_eq!(publish(&keys, "c", "body", "", now), "c");
        assert_eq!(publish(&keys, "slow", "body", "", now), "slow");
        assert_eq!(publish(&keys, "a", "body", "again", now), "anew");
        let remembered = keys.remembered();
        assert_eq!(remembered.answered.len(), remembered.keys.len());
    }

    #[test]
    fn a_key_is_read_with_quotes_and_without() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|value| {
                headers.append(HEADER, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            });
            match key(&headers) {
                Ok(key) => key.map_or("none".into(), |key| format!("key {key}")),
                Err(refusal) => refusal.to_string(),
            }
        };
        let (longest, too_long) = ("x".repeat(KEY_BYTES_MAX), "x".repeat(KEY_BYTES_MAX + 1));
        assert_eq!(read(&[]), "none");
        assert_eq!(read(&["8e03978e-40d5"]), "key 8e03978e-40d5");
        assert_eq!(read(&["\"8e03978e-40d5\""]), "key 8e03978e-40d5");
        assert_eq!(read(&[&longest]), format!("key {longest}"));
        for (values, problem) in [
            (vec!["a", "a"], "is there twice"),
            (vec![""], "is not 1 to 255 characters long"),
            (vec!["\"\""], "is not 1 to 255 characters long"),
            (vec![&*too_long], "is not 1 to 255 characters long"),
            (vec!["\""], "has no quote at its end"),
            (vec!["\"a"], "has no quote at its end"),
            (vec!["a b"], "has a character that is not visible ASCII, or is a quote or a backslash"),
            (vec!["é"], "has a character that is not visible ASCII, or is a quote or a backslash"),
            (vec!["a\""], "has a character that is not visible ASCII, or is a quote or a backslash"),
            (vec!["\"a\";b"], "has no quote at its end"),
        ] {
            let text = read(&values);
            assert!(text.starts_with(&format!("Idempotency-Key {problem}; ")), "{values:?}: {text}");
        }
    }
}

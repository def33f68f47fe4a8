//! One transfer: which blocks go out when. It knows neither sockets nor clocks, so that every order of packets can be tried.
//!
//! Nothing is sent again before its time: old firmware of the Pi counts a duplicate as the next block. An acknowledgement that
//! is not of the current window is dropped, as answering it would double the traffic for ever (RFC 1123, 4.2.3.1).

use super::packet::{BLOCK_DEFAULT, Options};
use std::time::{Duration, Instant};

/// How often a packet is sent again before the client counts as gone.
const RETRIES: u32 = 5;
/// The same for a client that never answered: its address may be somebody else's.
const RETRIES_UNSEEN: u32 = 2;
/// Before a packet is sent again, if the client does not say otherwise.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Send the answer to the options.
    Options,
    /// Send these blocks, counted from 1 (block 1 holds the first byte).
    Blocks(std::ops::RangeInclusive<u64>),
    /// Nothing, until a packet comes or the time is up.
    Wait,
    /// It is complete.
    Done,
    /// The client is gone.
    GaveUp,
}

/// The state of a transfer.
#[derive(Debug)]
pub(crate) struct Transfer {
    size: u64,
    block: u64,
    window: u64,
    timeout: Duration,
    /// The last block that the client has.
    acknowledged: u64,
    /// The last block that was sent.
    sent: u64,
    /// Whether the answer to the options was acknowledged, or there was none to give.
    open: bool,
    /// Whether anything ever came back.
    seen: bool,
    /// Whether what the client has last must not be answered twice: the window after it went out again already, or the client
    /// got blocks twice before, which it acknowledges twice. (Else one lost packet would double all that follows.)
    repeated: bool,
    /// Whether something went out again since the client acknowledged a block.
    resent: bool,
    retries: u32,
    /// When what was sent last is sent again.
    pub(crate) due: Instant,
}

impl Transfer {
    /// A transfer of `size` bytes with these options, and what to send first.
    pub(crate) fn begin(size: u64, options: &Options, now: Instant) -> (Self, Next) {
        let timeout = options.timeout.map_or(TIMEOUT, |seconds| Duration::from_secs(seconds.into()));
        let mut transfer = Transfer {
            size,
            block: options.block.unwrap_or(BLOCK_DEFAULT).into(),
            window: options.window.unwrap_or(1).into(),
            timeout,
            acknowledged: 0,
            sent: 0,
            open: options.is_empty(),
            seen: false,
            repeated: false,
            resent: false,
            retries: 0,
            due: now + timeout,
        };
        let next = if transfer.open { transfer.window() } else { Next::Options };
        (transfer, next)
    }

    /// The number of the last block: the first one that is not full. A file of whole blocks ends with an empty one.
    fn last(&self) -> u64 {
        self.size / self.block + 1
    }

    fn window(&mut self) -> Next {
        let first = self.acknowledged + 1;
        self.sent = (self.acknowledged + self.window).min(self.last());
        Next::Blocks(first..=self.sent)
    }

    /// How many bytes a block has, but for the last.
    pub(crate) fn block(&self) -> usize {
        self.block as usize
    }

    /// Where a block lies in the file, and how many bytes it has.
    pub(crate) fn range(&self, number: u64) -> (u64, usize) {
        let offset = (number - 1) * self.block;
        (offset, self.block.min(self.size.saturating_sub(offset)) as usize)
    }

    /// Where blocks that follow each other lie in the file, and how many bytes they have together.
    pub(crate) fn span(&self, blocks: &std::ops::RangeInclusive<u64>) -> (u64, usize) {
        let (first, _) = self.range(*blocks.start());
        let (last, length) = self.range(*blocks.end());
        (first, (last - first) as usize + length)
    }

    /// The client acknowledges a block.
    pub(crate) fn acknowledge(&mut self, number: u16, now: Instant) -> Next {
        if !self.open {
            if number != 0 {
                return Next::Wait;
            }
            self.open = true;
        } else {
            // Numbers roll over from 65535 to 0. Which block is meant is clear, as a window is far shorter.
            let ahead = u64::from(number.wrapping_sub(self.acknowledged as u16));
            if self.acknowledged + ahead > self.sent {
                return Next::Wait;
            }
            if ahead == 0 {
                // The first block of a window was lost (RFC 7440, 4). Once only, and never in lockstep, where it would
                // double what follows.
                if self.window == 1 || self.repeated || !self.seen {
                    return Next::Wait;
                }
                (self.repeated, self.resent) = (true, true);
                self.due = now + self.timeout;
                return self.window();
            }
            self.repeated = std::mem::take(&mut self.resent);
            self.acknowledged += ahead;
            if self.acknowledged == self.last() {
                return Next::Done;
            }
        }
        self.seen = true;
        self.retries = 0;
        self.due = now + self.timeout;
        self.window()
    }

    /// Whether the client ever answered.
    pub(crate) fn is_seen(&self) -> bool {
        self.seen
    }

    /// What is to be sent goes out only now, as its bytes had to be waited for.
    pub(crate) fn late(&mut self, now: Instant) {
        self.due = now + self.timeout;
    }

    /// The time is up.
    pub(crate) fn expire(&mut self, now: Instant) -> Next {
        self.retries += 1;
        if self.retries > if self.seen { RETRIES } else { RETRIES_UNSEEN } {
            return Next::GaveUp;
        }
        self.due = now + self.timeout;
        self.resent = true;
        // The first block alone: its acknowledgement says what else is missing.
        let first = self.acknowledged + 1;
        if self.open { Next::Blocks(first..=first) } else { Next::Options }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(size: u64, options: Options) -> (Transfer, Next, Instant) {
        let now = Instant::now();
        let (transfer, next) = Transfer::begin(size, &options, now);
        (transfer, next, now)
    }

    #[test]
    fn lockstep_without_options() {
        let (mut transfer, next, now) = begin(1024, Options::default());
        assert_eq!(next, Next::Blocks(1..=1));
        assert_eq!(transfer.acknowledge(1, now), Next::Blocks(2..=2));
        assert_eq!(transfer.acknowledge(1, now), Next::Wait, "a duplicate is not answered");
        assert_eq!(transfer.acknowledge(2, now), Next::Blocks(3..=3));
        assert_eq!((transfer.range(2), transfer.range(3)), ((512, 512), (1024, 0)));
        assert_eq!(transfer.acknowledge(9, now), Next::Wait);
        assert_eq!(transfer.acknowledge(3, now), Next::Done);
    }

    #[test]
    fn windows_shift_to_what_was_acknowledged() {
        let options = Options { block: Some(1000), window: Some(4), ..Options::default() };
        let (mut transfer, next, now) = begin(9500, options);
        assert_eq!(next, Next::Options);
        assert_eq!(transfer.acknowledge(3, now), Next::Wait);
        assert_eq!(transfer.acknowledge(0, now), Next::Blocks(1..=4));
        // The third got lost: the client has two.
        assert_eq!(transfer.acknowledge(2, now), Next::Blocks(3..=6));
        assert_eq!(transfer.acknowledge(6, now), Next::Blocks(7..=10));
        assert_eq!(transfer.range(10), (9000, 500));
        assert_eq!(transfer.acknowledge(10, now), Next::Done);
    }

    #[test]
    fn a_window_whose_first_block_is_lost_goes_out_once_more() {
        let options = Options { block: Some(1000), window: Some(4), ..Options::default() };
        let (mut transfer, _, now) = begin(19_500, options);
        assert_eq!(transfer.acknowledge(0, now), Next::Blocks(1..=4));
        assert_eq!(transfer.acknowledge(4, now), Next::Blocks(5..=8));
        assert_eq!(transfer.acknowledge(4, now), Next::Blocks(5..=8), "it lost the fifth");
        assert_eq!(transfer.acknowledge(4, now), Next::Wait, "but not for ever");
        assert_eq!(transfer.acknowledge(8, now), Next::Blocks(9..=12));
        assert_eq!(transfer.acknowledge(8, now), Next::Wait, "it has the window before twice, and says so twice");
        assert_eq!(transfer.acknowledge(12, now), Next::Blocks(13..=16));
        assert_eq!(transfer.acknowledge(12, now), Next::Blocks(13..=16));
        assert_eq!(transfer.acknowledge(7, now), Next::Wait, "an old one is not answered");
    }

    #[test]
    fn a_client_that_pauses_does_not_double_what_follows() {
        // One that acknowledges whenever it has a whole window, and, as U-Boot does, says what it has when a block comes that
        // it does not wait for.
        let (window, last) = (16, 2001);
        let options = Options { block: Some(8), window: Some(window as u16), ..Options::default() };
        let (mut transfer, _, now) = begin(2000 * 8, options);
        let mut line: std::collections::VecDeque<u64> = std::collections::VecDeque::new();
        let (mut sent, mut has, mut begun) = (0_u64, 0_u64, 0_u64);
        let mut answers = vec![transfer.acknowledge(0, now)];
        let mut stalled = false;
        while has < last {
            for answer in answers.drain(..) {
                if let Next::Blocks(blocks) = answer {
                    sent += blocks.clone().count() as u64;
                    line.extend(blocks);
                }
            }
            if has == 160 && !stalled {
                stalled = true;
                answers.push(transfer.expire(now));
                continue;
            }
            let block = line.pop_front().expect("it waits for ever");
            if block == has + 1 {
                has = block;
                if has - begun == window || has == last {
                    begun = has;
                    answers.push(transfer.acknowledge(has as u16, now));
                }
            } else {
                begun = has;
                answers.push(transfer.acknowledge(has as u16, now));
            }
        }
        assert!(stalled && sent < last + 3 * window, "{sent} blocks were sent for {last}");
    }

    #[test]
    fn numbers_roll_over() {
        let options = Options { block: Some(8), window: Some(16), ..Options::default() };
        let blocks = 200_000_u64;
        let (mut transfer, _, now) = begin(blocks * 8, options);
        let mut next = transfer.acknowledge(0, now);
        let mut sent = 0;
        while let Next::Blocks(range) = next {
            assert_eq!(*range.start(), sent + 1);
            sent = *range.end();
            assert_eq!(transfer.range(sent).0, (sent - 1) * 8);
            next = transfer.acknowledge(sent as u16, now);
        }
        assert_eq!((next, sent), (Next::Done, blocks + 1));
    }

    #[test]
    fn nothing_is_sent_for_ever() {
        let (mut transfer, _, now) = begin(10_000, Options { size: true, timeout: Some(3), ..Options::default() });
        assert_eq!(transfer.due, now + Duration::from_secs(3));
        assert_eq!(transfer.expire(now), Next::Options);
        assert_eq!(transfer.expire(now), Next::Options);
        assert_eq!(transfer.expire(now), Next::GaveUp, "an address that never answered is not sent much");
        let (mut transfer, _, now) = begin(10_000, Options::default());
        transfer.acknowledge(1, now);
        let again = (0..10).map(|_| transfer.expire(now)).take_while(|next| *next == Next::Blocks(2..=2)).count();
        assert_eq!(again, RETRIES as usize);
    }

    #[test]
    fn a_client_with_a_larger_window_than_the_file() {
        let (mut transfer, _, now) = begin(0, Options { window: Some(64), ..Options::default() });
        assert_eq!(transfer.acknowledge(0, now), Next::Blocks(1..=1));
        assert_eq!(transfer.range(1), (0, 0));
        assert_eq!(transfer.acknowledge(1, now), Next::Done);
    }
}

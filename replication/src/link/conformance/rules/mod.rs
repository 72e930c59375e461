//! The rules, each with its name, its sentence, and where to look when it is broken.

mod dropped;
mod lasting;
mod messages;
mod push;
mod rounds;
mod sites;
mod together;

use super::Rule;

/// All rules, in the order in which they run.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "bytes-unchanged",
        says: "what deliver took, poll gives, byte for byte",
        look_at: "text conversion, trimming, framing and padding between deliver and poll",
        attempt: |trial| Box::pin(messages::bytes_unchanged(trial)),
    },
    Rule {
        name: "every-size",
        says: "a message of 1 byte up to the largest arrives whole",
        look_at: "buffers, pages and pieces of a fixed size, and limits of the medium",
        attempt: |trial| Box::pin(messages::every_size(trial)),
    },
    Rule {
        name: "refused-sizes",
        says: "a message that is empty or too large is Invalid, and nothing of it arrives",
        look_at: "the check that must come before anything is written or sent",
        attempt: |trial| Box::pin(messages::refused_sizes(trial)),
    },
    Rule {
        name: "stays-until-removed",
        says: "a message that was polled is given again, to any process of the site, until it is removed",
        look_at: "poll must not take messages away; only remove does",
        attempt: |trial| Box::pin(messages::stays_until_removed(trial)),
    },
    Rule {
        name: "removed-is-gone",
        says: "a removed message is not given again, and every other still is",
        look_at: "how remove finds a message by its id, and whether ids are ever used twice",
        attempt: |trial| Box::pin(messages::removed_is_gone(trial)),
    },
    Rule {
        name: "removing-again",
        says: "removing what is gone, or nothing at all, is success",
        look_at: "not-found errors of the medium in remove",
        attempt: |trial| Box::pin(messages::removing_again(trial)),
    },
    Rule {
        name: "foreign-ids",
        says: "an id that this kind of link never gave is Invalid, and nothing is removed in that call",
        look_at: "parse every id before the first is removed, and never make a path of one",
        attempt: |trial| Box::pin(messages::foreign_ids(trial)),
    },
    Rule {
        name: "rounds-end",
        says: "a round in small batches gives every message, and ends",
        look_at: "the cursor: each must lead behind the one before, the last batch has none",
        attempt: |trial| Box::pin(rounds::end(trial)),
    },
    Rule {
        name: "batches-bounded",
        says: "a batch keeps to max_count and max_bytes",
        look_at: "the sum of the sizes, before a further message is added",
        attempt: |trial| Box::pin(rounds::bounded(trial)),
    },
    Rule {
        name: "first-whatever-its-size",
        says: "the first message of a batch is given even if it alone is above max_bytes",
        look_at: "max_bytes must not apply to an empty batch, or a large message waits for ever",
        attempt: |trial| Box::pin(rounds::first_whatever_its_size(trial)),
    },
    Rule {
        name: "skip-hides-nothing-else",
        says: "what is not in skip is given, whatever is in it",
        look_at: "how skip and cursor meet; foreign ids in skip are ignored",
        attempt: |trial| Box::pin(rounds::skip(trial)),
    },
    Rule {
        name: "removal-within-a-round",
        says: "a round whose messages are removed batch by batch still gives all",
        look_at: "cursors that count messages: removing shifts them",
        attempt: |trial| Box::pin(rounds::removal_within(trial)),
    },
    Rule {
        name: "begin-round-changes-nothing",
        says: "begin_round may come at any time, as often as it likes, and loses nothing",
        look_at: "state that begin_round resets",
        attempt: |trial| Box::pin(rounds::begin_round(trial)),
    },
    Rule {
        name: "only-the-addressee",
        says: "a message is given to the site it is for and to no other",
        look_at: "how the medium tells mailboxes apart",
        attempt: |trial| Box::pin(sites::only_the_addressee(trial)),
    },
    Rule {
        name: "names-kept-apart",
        says: "sites whose names look like each other, or like parts of the medium, do not meet",
        look_at: "names used as prefixes, patterns or paths; separators that a name may hold",
        attempt: |trial| Box::pin(sites::names_kept_apart(trial)),
    },
    Rule {
        name: "ones-own-removal",
        says: "what one site removes is there for the others",
        look_at: "ids that are not tied to the mailbox of the site that removes",
        attempt: |trial| Box::pin(sites::ones_own_removal(trial)),
    },
    Rule {
        name: "says-its-address",
        says: "address is one line of text that an operator can read",
        look_at: "the address method",
        attempt: |trial| Box::pin(sites::says_its_address(trial)),
    },
    Rule {
        name: "deliveries-at-once",
        says: "deliveries from several tasks and several sites all arrive, whole",
        look_at: "shared buffers, names or positions between two calls of deliver",
        attempt: |trial| Box::pin(together::deliveries(trial)),
    },
    Rule {
        name: "never-partial",
        says: "a poll while messages are being delivered gives only whole ones",
        look_at: "a message must get its name, or its place in the index, after all of its bytes",
        attempt: |trial| Box::pin(together::never_partial(trial)),
    },
    Rule {
        name: "two-pollers",
        says: "two tasks that poll and remove at once lose nothing between them",
        look_at: "state of a round that is kept in the link and not in the cursor",
        attempt: |trial| Box::pin(together::two_pollers(trial)),
    },
    Rule {
        name: "dropped-deliver",
        says: "a deliver that is dropped half-way leaves the whole message or nothing, and the link goes on",
        look_at: "locks and half-written requests that a dropped future leaves behind",
        attempt: |trial| Box::pin(dropped::deliver(trial)),
    },
    Rule {
        name: "dropped-poll",
        says: "a poll that is dropped half-way loses nothing, and the link goes on",
        look_at: "anything a poll changes, and answers read by the wrong request",
        attempt: |trial| Box::pin(dropped::poll(trial)),
    },
    Rule {
        name: "dropped-remove",
        says: "a remove that is dropped half-way takes away no other message, and the link goes on",
        look_at: "rewriting a list of messages in place",
        attempt: |trial| Box::pin(dropped::remove(trial)),
    },
    Rule {
        name: "durable",
        says: "what deliver took is there after the links and the medium are closed and opened again",
        look_at: "what was synced before deliver returned Ok, the folder of a new file included",
        attempt: |trial| Box::pin(lasting::durable(trial)),
    },
    Rule {
        name: "removed-for-good",
        says: "what was removed does not come back after everything is closed and opened again",
        look_at: "removals kept in memory alone",
        attempt: |trial| Box::pin(lasting::removed_for_good(trial)),
    },
    Rule {
        name: "begin-sending-keeps",
        says: "begin_sending removes no whole message and nothing of another site",
        look_at: "how left-overs are told from messages, and whose they are",
        attempt: |trial| Box::pin(lasting::begin_sending_keeps(trial)),
    },
    Rule {
        name: "begin-sending-cleans",
        says: "begin_sending removes what a killed process of the site left half-written, and no other site's",
        look_at: "begin_sending: left-overs go by their name, never by their time",
        attempt: |trial| Box::pin(lasting::begin_sending_cleans(trial)),
    },
    Rule {
        name: "wait-ends",
        says: "wait_for_push ends within its limit, may be dropped, and may be called again",
        look_at: "a wait without a timer, or one that blocks its thread",
        attempt: |trial| Box::pin(push::wait_ends(trial)),
    },
    Rule {
        name: "push-tells",
        says: "a link with push ends the wait of a site that something came for",
        look_at: "who is told of a delivery, and news that come while nobody waits",
        attempt: |trial| Box::pin(push::tells(trial)),
    },
];

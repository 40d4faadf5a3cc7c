//! The life of a message with the shipped policies: on both stores, and with the policies as
//! components.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "life/delivery.rs"]
mod delivery;
#[path = "life/failure.rs"]
mod failure;
#[path = "life/handover.rs"]
mod handover;
#[path = "life/protection.rs"]
mod protection;

/// Each case, on each stand.
macro_rules! cases {
    ($($group:ident { $($case:ident)* })*) => {
        mod memory {
            $($(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$group::$case(oona_tests::bus::Stand::memory()).await;
            })*)*
        }

        mod redis {
            $($(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$group::$case(oona_tests::bus::Stand::redis()).await;
            })*)*
        }

        mod components {
            $($(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$group::$case(oona_tests::bus::Stand::components()).await;
            })*)*
        }
    };
}

cases! {
    delivery {
        a_message_goes_where_its_type_and_priority_send_it
        an_emergency_overtakes_what_came_first
        an_emergency_goes_before_what_waits
        every_group_gets_every_message
        messages_of_the_existing_client_are_delivered
        what_is_published_again_is_answered_with_the_first_outcome
        what_is_refused_now_was_accepted_before
        credit_in_bytes_is_kept_to
    }
    failure {
        what_is_refused_is_tried_again_until_it_is_filed
        poison_is_filed_at_once
        an_answer_that_does_not_come_is_a_failure
        whoever_needs_longer_may_say_so
        a_redriven_message_goes_to_the_group_that_failed
        a_copied_entry_is_a_replay_and_a_redelivery_is_none
        what_is_too_old_is_filed
        what_has_expired_is_filed
    }
    handover {
        what_a_lost_subscriber_had_goes_to_another
        what_a_leaving_subscriber_had_goes_to_another_at_once
        what_a_dead_host_had_is_claimed
        a_shutdown_answers_every_publish_and_gives_back_what_is_in_hand
    }
    protection {
        a_full_bus_protects_itself_and_recovers
        a_handler_that_fails_at_everything_is_given_a_rest
        a_source_that_raises_alarms_without_end_leaves_others_theirs
        an_emergency_without_a_token_is_demoted
        an_emergency_without_a_token_is_deferred_if_so_configured
    }
}

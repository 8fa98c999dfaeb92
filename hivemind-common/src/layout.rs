//! What a build makes of maps that one of another version has left.
//!
//! Maps that are the same in both versions are shared: they are pinned a second time. A map whose layout changed is made anew,
//! and each of its entries is turned into one of the new layout when a packet asks for it, or by the daemon, whichever comes
//! first. The function that does it is the same for both, and pure.
//!
//! A new version of the layout says here which maps it changed ([`PREVIOUS`]), keeps the types of the version before in a module
//! `previous`, with the function that turns one into the other, and nothing else of it.

/// The version that a build takes over, and what is different in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Previous {
    /// Its number.
    pub version: u32,
    /// The maps of which the layout is another, besides [`OWN`].
    pub changed: &'static [&'static str],
}

/// The version from which this build can take over. From others it cannot: it is upgraded to step by step.
pub const PREVIOUS: Option<Previous> = if cfg!(feature = "next-layout") {
    Some(Previous { version: 6, changed: &[crate::name::CONNTRACK_V4, crate::name::CONNTRACK_V6] })
} else {
    // Entries of policies have more to say since, and say what they said; what rules decide was not counted. Counters of
    // pairs lay in a map by processor; they begin at zero again.
    Some(Previous { version: 5, changed: &[crate::name::VERDICTS, crate::name::PAIR_COUNTERS] })
};

/// What programs of one layout never share with those of another: their scratch space, what they hand to one another, and
/// the timer.
pub const OWN: [&str; 6] = [
    crate::name::SCRATCH,
    crate::name::BINDING,
    crate::name::ROUTE,
    crate::name::HANDED,
    crate::name::STEPS,
    crate::name::COLLECTOR,
];

/// Whether a map is the same in the version before.
pub fn is_shared(previous: &Previous, map: &str) -> bool {
    !OWN.contains(&map) && !previous.changed.contains(&map)
}

/// The types of version 6, for builds of the version after it.
#[cfg(feature = "next-layout")]
pub mod previous {
    use crate::conntrack;

    /// Value of `conntrack_v4` and `conntrack_v6` in version 6.
    #[repr(C)]
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    #[allow(missing_docs)]
    pub struct Entry {
        pub expires_ns: u64,
        pub began_ns: u64,
        pub generations: [u64; 2],
        pub bytes: [u64; 2],
        pub packets: [u64; 2],
        pub endpoints: [u32; 2],
        pub interfaces: [u32; 2],
        pub identities: [u32; 2],
        pub rules: [u32; 2],
        pub pair: u32,
        pub frame_macs: [[u32; 3]; 2],
        pub seen: [u8; 2],
        pub flags: u8,
        pub padding: u8,
    }

    impl Entry {
        /// Writes the entry as it is in this version. In place: a program's stack has no room for it.
        #[inline(always)]
        pub fn turn_into(&self, entry: &mut conntrack::Entry) {
            entry.made_under = 6;
            entry.expires_ns = self.expires_ns;
            entry.began_ns = self.began_ns;
            entry.pair = self.pair;
            entry.seen = self.seen;
            entry.flags = self.flags;
            entry.padding = 0;
            for i in 0..2 {
                entry.generations[i] = self.generations[i];
                entry.bytes[i] = self.bytes[i];
                entry.packets[i] = self.packets[i];
                entry.endpoints[i] = self.endpoints[i];
                entry.interfaces[i] = self.interfaces[i];
                entry.identities[i] = self.identities[i];
                entry.rules[i] = self.rules[i];
                for word in 0..3 {
                    entry.frame_macs[i][word] = self.frame_macs[i][word];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name;

    /// Of these nothing is read through to the version before, and hooks are not changed over at one time that use them.
    #[test]
    fn what_socket_hooks_keep_is_the_same_in_both_versions() {
        let Some(previous) = PREVIOUS else { return };
        let kept = [
            name::REVERSE_V4,
            name::REVERSE_V6,
            name::AFFINITY,
            name::SERVICE_V4,
            name::SERVICE_V6,
            name::SERVICE_TABLE,
            name::BACKEND_V4,
            name::BACKEND_V6,
            name::NODE_ADDRESS_V4,
            name::NODE_ADDRESS_V6,
            name::RTT,
        ];
        for map in kept {
            assert!(is_shared(&previous, map), "{map}");
        }
    }

    #[test]
    fn maps_that_are_not_shared_exist() {
        let changed = PREVIOUS.map_or(&[][..], |previous| previous.changed);
        for map in OWN.iter().chain(changed) {
            assert!(name::MAPS.contains(map), "{map}");
        }
        assert!(PREVIOUS.is_none_or(|previous| previous.version < crate::ABI_VERSION));
    }

    #[cfg(feature = "next-layout")]
    mod of_version_5 {
        use super::super::previous;
        use crate::conntrack::Entry;
        use proptest::prelude::*;

        proptest! {
            #[test]
            fn a_connection_keeps_everything_that_was_known_of_it(
                times: [u64; 2], eights in any::<[[u64; 2]; 3]>(), fours in any::<[[u32; 2]; 4]>(),
                pair: u32, frame_macs: [[u32; 3]; 2], seen: [u8; 2], flags: u8
            ) {
                let [generations, bytes, packets] = eights;
                let [endpoints, interfaces, identities, rules] = fours;
                let [expires_ns, began_ns] = times;
                let old = previous::Entry {
                    expires_ns, began_ns, generations, bytes, packets, endpoints, interfaces, identities, rules, pair,
                    frame_macs, seen, flags, padding: 0,
                };
                // What was there before must not shine through.
                let mut new = Entry { padding: 9, made_under: 9, rules: [9; 2], ..Entry::default() };
                old.turn_into(&mut new);
                let expected = Entry {
                    made_under: 6, expires_ns, began_ns, generations, bytes, packets, endpoints, interfaces, identities,
                    rules, pair, frame_macs, seen, flags, padding: 0,
                };
                prop_assert_eq!(new, expected);
            }
        }
    }
}

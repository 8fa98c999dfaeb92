//! The story of a node, as one test.

#[test]
fn the_story_of_a_node_is_played_to_its_end() -> anyhow::Result<()> {
    hivemind_tests::play(|line| println!("{line}"))
}

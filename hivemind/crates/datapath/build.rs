//! Puts the eBPF object where the crate embeds it from.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=HIVEMIND_BPF_OBJECT");
    let from = env::var_os("HIVEMIND_BPF_OBJECT").map(PathBuf::from).unwrap_or_else(|| {
        let crate_dir = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
        let is_next = env::var_os("CARGO_FEATURE_NEXT_LAYOUT").is_some();
        let object = if is_next { "hivemind-next.bpf.o" } else { "hivemind.bpf.o" };
        crate_dir.join("../../../target/ebpf").join(object)
    });
    println!("cargo::rerun-if-changed={}", from.display());
    let to = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("hivemind.bpf.o");
    if !from.is_file() {
        println!(
            "cargo::error=the eBPF programs are not built: run `cargo xtask setup` once, then `cargo xtask build-ebpf`"
        );
    } else if let Err(error) = fs::copy(&from, &to) {
        println!("cargo::error=cannot copy {} to {}: {error}", from.display(), to.display());
    }
}

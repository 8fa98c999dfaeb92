//! Packs the dashboard's files into a table for `src/dashboard.rs`: those that `cargo xtask ui` built, or else the page
//! that says how to build them. It never runs npm. Packs the reference of the API beside them.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

fn main() {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    if let Err(error) = pack_dashboard(&package, &out) {
        println!("cargo::error=cannot pack the dashboard's files: {error}");
    }
    let reference = package.join("../../../docs/reference/openapi.json");
    println!("cargo::rerun-if-changed={}", reference.display());
    if let Err(error) = fs::read(&reference).and_then(|content| pack(&content, &out.join("openapi.json.gz")))
    {
        println!("cargo::error=cannot pack {}: {error}", reference.display());
    }
}

fn pack(content: &[u8], to: &Path) -> io::Result<()> {
    let mut encoder = GzEncoder::new(fs::File::create(to)?, Compression::best());
    encoder.write_all(content)?;
    encoder.finish().map(drop)
}

fn pack_dashboard(package: &Path, out: &Path) -> io::Result<()> {
    let dist = package.join("../../../ui/dist");
    let placeholder = package.join("src/dashboard/not-built.html");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", dist.display());
    println!("cargo::rerun-if-changed={}", placeholder.display());

    let site = dist.join("site");
    let mut files = Vec::new();
    if site.join("index.html").is_file() {
        collect(&site, "", &mut files)?;
    } else {
        files.push(("/index.html".to_owned(), placeholder));
    }
    files.sort();

    let mut table = String::from("static FILES: &[File] = &[\n");
    for (number, (path, file)) in files.iter().enumerate() {
        let content = fs::read(file)?;
        let packed = out.join(format!("dashboard-{number}.gz"));
        pack(&content, &packed)?;
        let hash: String = Sha256::digest(&content).iter().take(12).map(|b| format!("{b:02x}")).collect();
        let _ = writeln!(
            table,
            "File {{ path: {path:?}, content_type: {:?}, etag: \"W/\\\"{hash}\\\"\", gzip: include_bytes!({packed:?}) }},",
            content_type(file),
        );
    }
    table.push_str("];\n");
    fs::write(out.join("dashboard.rs"), table)
}

/// All files below `directory`, with their paths as a browser asks for them.
fn collect(directory: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &path, files)?;
        } else {
            files.push((path, entry.path()));
        }
    }
    Ok(())
}

fn content_type(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("json") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

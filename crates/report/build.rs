//! Tells the report what it is built with.

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=../../Cargo.lock");
    println!("cargo::rerun-if-changed=build.rs");
    built::write_built_file()
}

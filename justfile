# fmstudy: `just` lists the recipes.

set positional-arguments

# What the programs are built with: `export FMSTUDY_FEATURES=cudnn` for a GPU (docs/gpu.md).
features := env("FMSTUDY_FEATURES", "")
run := "cargo run --release --quiet --features '" + features + "' --bin"

_default:
    @just --list --unsorted

# Run the backbone over every image that is not cached yet: just extract [key=value …]
extract *overrides:
    @{{run}} extract -- "$@"

# Train what is not fresh: just train combo=fm1+fm2 [key=value …]
train *overrides:
    @{{run}} train -- "$@"

# Evaluate every trained run that has no fresh evaluation: just eval [combo=…]
eval *overrides:
    @{{run}} eval -- "$@"

# All of it: extract, train and evaluate what is not fresh, then the report: just study [key=value …]
study *overrides:
    @{{run}} fmstudy -- study "$@"

# The report of what is evaluated, in seconds
report *overrides:
    @{{run}} fmstudy -- report "$@"

# Images with their feature maps, as the paper's Figure 3: just figure images=face.png[,…]
figure *overrides:
    @{{run}} fmstudy -- figure "$@"

# What a trained run says of an image or a folder of images: just predict image=face.png [combo=…]
predict *overrides:
    @{{run}} fmstudy -- predict "$@"

# What is fresh, stale (and why), partial or missing
status *overrides:
    @{{run}} fmstudy -- status "$@"

# Read everything again and compare it with its recorded hash
verify *overrides:
    @{{run}} fmstudy -- verify "$@"

# Remove what no current configuration uses, after listing it and asking
clean-stale *overrides:
    @{{run}} fmstudy -- clean-stale "$@"

# Make a small data set of drawn faces and run the whole chain on it, down to the report; needs no download
demo:
    cargo build --release --workspace --bins --features "{{features}}"
    target/release/fmstudy demo-data
    target/release/extract --config demo.toml
    target/release/train --config demo.toml
    target/release/eval --config demo.toml
    target/release/fmstudy report --config demo.toml

# All tests
test:
    cargo test --workspace

# Formatting and lints, as CI checks them
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- --deny warnings

# Kills, power cuts, full disks, flipped bits, done to a small study: just torture [kill power …] [--full] [--json]
torture *arguments:
    @{{run}} torture -- "$@"

# The kernels' tests under valgrind, which knows no AVX-512: the same code for AVX2 and in plain Rust
memcheck:
    #!/usr/bin/env bash
    set -euo pipefail
    export PROPTEST_CASES=10
    tests=$(cargo test -p kernels --tests --no-run --message-format=json | grep -oP '"executable":"\K[^"]+')
    for test in $tests; do valgrind --quiet --error-exitcode=9 "$test"; done

# Measure beside PyTorch: just bench extract [--layers] [--json] [--python PATH], just bench train [--json] [--python PATH]
bench *arguments:
    @{{run}} bench -- "$@"

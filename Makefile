# Everything sets itself up: a Rust toolchain and a C compiler are all that is needed.
CARGO ?= cargo
export CARGO_TERM_COLOR ?= auto

.PHONY: demo test bench check install clean

demo:            ## train a small network on real digits, log every layer of every epoch, ask five questions
	$(CARGO) run --release --quiet --bin mistique -- demo

test:            ## all tests, in the one optimised profile (networks are unusably slow unoptimised)
	$(CARGO) test --release --workspace

bench:           ## the tables of ARCHITECTURE.md, as ratios against memcpy in the same run
	$(CARGO) bench --bench storage --bench queries --bench logging --bench catalog --bench planner --bench questions --bench pipelines --bench accuracy --bench similarity --bench dedup --bench by_example --bench adaptive --bench memory

check:           ## formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

install:         ## the `mistique` command into Cargo's bin folder
	$(CARGO) install --path .

clean:
	$(CARGO) clean
	rm -rf demo.mq

# Plain make; every target has its line of help.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
PORT    ?= 8080
FUZZTIME ?= 30s
STRESS  ?= 20

# What the command line library would add for man pages and guesses, which hotwrap does not use: it costs a start half a millisecond.
TAGS = urfave_cli_no_docs,urfave_cli_no_suggest

# Tools are run at a version and are no dependency of the program.
LINT = go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

# The race detector's runtime sleeps a second at the end of every process, and the tests start hundreds.
RACE = GORACE=atexit_sleep_ms=0 go test -race

.DEFAULT_GOAL := help
.PHONY: help build demo test stress fuzz bench lint vet-other clean

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/hotwrap and the demo program bin/echo
	CGO_ENABLED=0 go build -trimpath -tags $(TAGS) -ldflags "-s -w -X main.version=$(VERSION)" -o bin/hotwrap .
	CGO_ENABLED=0 go build -trimpath -o bin/ ./testapps/echo

demo: build ## serve the demo program on 127.0.0.1:8080 (PORT=...), to be restarted by you
	@echo
	@echo 'In another terminal:'
	@echo '  curl http://127.0.0.1:$(PORT)/       which generation answers'
	@exec sh -c 'echo "  kill -HUP $$$$                 restart it: the next generation takes over"; \
		echo "Ctrl-C here ends it."; echo; \
		exec bin/hotwrap -l 127.0.0.1:$(PORT) -- bin/echo'

test: ## run all tests with the race detector
	$(RACE) -shuffle=on -timeout=20m ./...

stress: ## run the end-to-end and state machine tests STRESS times (20)
	$(RACE) -count=$(STRESS) -timeout=30m -run 'Script|Step' .

fuzz: ## run every fuzz target for FUZZTIME (30s)
	@set -e; grep -ho '^func Fuzz[A-Za-z0-9_]*' *_test.go | sed 's/^func //' | sort | while read -r target; do \
		echo "$$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) .; done

bench: ## run the benchmarks
	go test -run '^$$' -bench . -benchmem ./...

lint: ## check the formatting, the linters and go vet
	$(LINT) fmt --diff
	$(LINT) run
	go vet ./...

vet-other: ## vet for the other systems: macOS and FreeBSD
	GOOS=darwin go vet ./...
	GOOS=freebsd go vet ./...

clean: ## remove what was built
	rm -rf bin

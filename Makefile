# Plain make; every target has its line of help.

EPOCH   ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
PORT    ?= 8080
FUZZTIME ?= 30s
STRESS  ?= 20
MINUTES ?= 2
PREFIX  ?= /usr/local
DESTDIR ?=
SEED    ?=

# What the command line library would add for man pages and guesses, which hotwrap does not use: it costs a start half a millisecond.
TAGS = urfave_cli_no_docs,urfave_cli_no_suggest

# The same bytes wherever and by whomever it is built: make repro compares.
BUILD = CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags $(TAGS) -ldflags "-s -w -X main.version=$(VERSION)"

# Tools are run at a version and are no dependency of the program.
HCLFMT = go run github.com/hashicorp/hcl/v2/cmd/hclfmt@v2.24.0
NFPM = go run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.4
GORELEASER = go run github.com/goreleaser/goreleaser/v2@v2.12.7
LINT = go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

# The race detector's runtime sleeps a second at the end of every process, and the tests start hundreds.
RACE = GORACE=atexit_sleep_ms=0 go test -race

.DEFAULT_GOAL := help
.PHONY: help build completions demo test stress soak fuzz bench lint vuln vet-other install uninstall package-files packages package-test repro snapshot clean

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/hotwrap and the demo program bin/echo
	$(BUILD) -o bin/hotwrap .
	CGO_ENABLED=0 go build -trimpath -o bin/ ./testapps/echo

completions: ## write completions/ for bash, zsh and fish anew
	go test -run '^TestCompletions$$' -update .

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

soak: ## everything that happens to a server in years, under load, for MINUTES (2); SEED repeats a run
	HOTWRAP_SOAK_MINUTES=$(MINUTES) HOTWRAP_SOAK_SEED=$(SEED) go test -v -count=1 -timeout=0 -run '^TestSoak$$' .

fuzz: ## run every fuzz target for FUZZTIME (30s)
	@set -e; grep -ho '^func Fuzz[A-Za-z0-9_]*' *_test.go | sed 's/^func //' | sort | while read -r target; do \
		echo "$$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) .; done

bench: ## run the benchmarks
	go test -run '^$$' -bench . -benchmem ./...

lint: ## check the formatting, the linters and go vet
	$(LINT) fmt --diff
	$(LINT) run
	go vet ./...
	$(HCLFMT) -check examples/nomad/*.hcl >/dev/null

vuln: ## look for known vulnerabilities in what hotwrap uses (asks vuln.go.dev)
	bash .ci/vuln

vet-other: ## vet for the other systems: macOS and FreeBSD
	GOOS=darwin go vet ./...
	GOOS=freebsd go vet ./...

install: build ## put hotwrap, its manual and completions below PREFIX (/usr/local), in DESTDIR
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 0755 bin/hotwrap $(DESTDIR)$(PREFIX)/bin/.hotwrap.new
	mv -f $(DESTDIR)$(PREFIX)/bin/.hotwrap.new $(DESTDIR)$(PREFIX)/bin/hotwrap
	install -m 0644 docs/hotwrap.1 $(DESTDIR)$(PREFIX)/share/man/man1/hotwrap.1
	install -m 0644 completions/hotwrap.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/hotwrap
	install -m 0644 completions/_hotwrap $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_hotwrap
	install -m 0644 completions/hotwrap.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/hotwrap.fish

uninstall: ## take away what install has put there
	rm -f $(DESTDIR)$(PREFIX)/bin/hotwrap $(DESTDIR)$(PREFIX)/share/man/man1/hotwrap.1 \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/hotwrap $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_hotwrap \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/hotwrap.fish

package-files: ## what packages want in a form of its own: compressed, with fixed modes and dates, with a head
	rm -rf bin/package
	mkdir -p bin/package
	cp -r examples packaging/postinstall.sh bin/package
	gzip -9n <docs/hotwrap.1 >bin/package/hotwrap.1.gz
	gzip -9n <CHANGELOG.md >bin/package/changelog.gz
	{ echo 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/'; echo; echo 'Files: *'; \
		sed -n 's/^Copyright (c) /Copyright: /p' LICENSE; echo 'License: MIT'; \
		sed -e '1,/^Copyright/d' -e '/./!s/^/./' -e 's/^/ /' LICENSE | sed 1d; } >bin/package/copyright
	find bin/package -type d -exec chmod 0755 {} + -o -type f -exec chmod 0644 {} +
	find bin/package -exec touch -d @$(EPOCH) {} +

packages: package-files ## deb, rpm and apk for this machine, in dist/
	$(BUILD) -o bin/package/hotwrap .
	mkdir -p dist
	sh packaging/nfpm.sh $(VERSION) $$(go env GOARCH) bin/package/hotwrap >bin/package/nfpm.yaml
	for format in deb rpm apk; do SOURCE_DATE_EPOCH=$(EPOCH) $(NFPM) package -f bin/package/nfpm.yaml -p $$format -t dist/ || exit; done

package-test: ## make packages, look into them, and have dpkg install and replace one while an instance runs
	bash packaging/test.sh

repro: ## build everything twice, in other places under other circumstances, and compare
	bash packaging/repro.sh

snapshot: ## a release of what lies here, in dist/, without a tag and published nowhere
	$(GORELEASER) check
	$(GORELEASER) release --snapshot --clean --skip=publish

clean: ## remove what was built
	rm -rf bin dist

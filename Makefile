# Understudy. `make help` lists what there is. Everything is built as the caller; only the built
# binary runs as root, through sudo where the caller is not root.

SHELL     := /bin/sh
CACHE     ?= $(HOME)/.cache/understudy
NAME      ?= demo
BUILD     := build
SUDO      := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
UNDERSTUDY = $(SUDO) $(BUILD)/understudy
GOFLAGS_  := -trimpath -ldflags "-s -w"
FORWARDS  := --forward 8080=www:80 --forward 2525=mail:25 --forward 5870=mail:587 --forward 9930=mail:993 --forward 8418=control.understudy.internal:3000

export CGO_ENABLED := 0

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# An older Go is refused in one sentence, and so is a caller who can neither be root nor sudo.
.PHONY: check-go check-root
check-go:
	@command -v go >/dev/null 2>&1 || { echo "make: Go 1.26 or later is needed and there is none on PATH: https://go.dev/dl" >&2; exit 1; }
	@go version | awk '{split(substr($$3, 3), v, "."); exit !(v[1] > 1 || v[2] + 0 >= 26)}' || \
	  { echo "make: Go 1.26 or later is needed, this is $$(go version | cut -d' ' -f3): https://go.dev/dl" >&2; exit 1; }
check-root:
	@[ "$$(id -u)" = 0 ] || command -v sudo >/dev/null 2>&1 || \
	  { echo "make: this needs root or sudo (namespaces, mounts); run it as root, or install sudo" >&2; exit 1; }

.PHONY: build
build: check-go ## build both binaries into build/
	go build $(GOFLAGS_) -o $(BUILD)/understudy ./sidecar
	go build $(GOFLAGS_) -o $(BUILD)/understudy-bootstrap ./bootstrap

.PHONY: image
image: check-root build ## make the image from which every node boots
	$(UNDERSTUDY) image build --install --cache $(CACHE)

$(BUILD)/blog_1.0_all.deb: $(shell find tests/blog -type f 2>/dev/null)
	@mkdir -p $(BUILD)
	SOURCE_DATE_EPOCH=1767225600 dpkg-deb --root-owner-group --build tests/blog $@

.PHONY: demo
demo: check-root build $(BUILD)/blog_1.0_all.deb ## boot the reference cluster of eight nodes, destroy one and show the recovery
	$(UNDERSTUDY) local up --name $(NAME) --install --cache $(CACHE) --publish $(BUILD)/blog_1.0_all.deb $(FORWARDS)
	$(UNDERSTUDY) status --local $(NAME) --wait redundant --timeout 2m
	@echo
	@echo "Now one of the eight is destroyed, as a provider may do it any day:"
	@echo
	$(UNDERSTUDY) chaos --local $(NAME) --wait 1m
	@echo
	@echo "The blog:        http://127.0.0.1:8080/"
	@echo "Mail:            SMTP 127.0.0.1:2525, submission 127.0.0.1:5870, IMAP with TLS 127.0.0.1:9930"
	@echo "Control repo:    git clone http://127.0.0.1:8418/control.git"
	@echo "What is where:   $(UNDERSTUDY) local status"
	@echo "On a node:       $(UNDERSTUDY) local exec web1 -- systemctl status nginx"
	@echo "When done:       make down"

.PHONY: down
down: check-root build ## take the demo down and leave nothing behind
	$(UNDERSTUDY) local down --name $(NAME) --cache $(CACHE)

# --- tests -------------------------------------------------------------------------------------
# Test binaries that need root (namespaces, mounts, nodes) are built as the caller and run as root.

ROOT_PACKAGES := ./sidecar/address ./sidecar/cloud/localcloud/netns ./sidecar/cloud/localcloud/nspawn ./sidecar/datasync ./sidecar/datasync/apply ./tests/contract/nameserver ./tests/netns ./tests/node ./tests/puppet ./tests/e2e
# One goroutine that searches for a minute: the race detector would find nothing and take ten.
SEARCHES      := ./tests/sim ./tests/sim/model ./sidecar/decide
TOOLS         := puppet-lint reprepro ruby-rspec-puppet keepalived knot knot-dnsutils bind9 bind9-dnsutils rsync lsyncd syncthing openssh-server $(shell sed -n "s,^\(puppet-module-[a-z0-9-]*\).*,\1,p" puppet/image-packages)
TEST_HOST     := gcc libc6-dev openssh-client gpg gpg-agent

.PHONY: test
test: check-root build test-fast tools ## run all tests
	@set -e; for p in $(ROOT_PACKAGES); do $(MAKE) --no-print-directory root-test PACKAGE=$$p; done
	@$(MAKE) --no-print-directory root-test PACKAGE=./sidecar/datasync CGO_ENABLED=1 COMPILE=-race TESTFLAGS=-test.short

.PHONY: test-long
test-long: check-root build tools ## run what takes too long for every day: the survivor of each role, the removal of a node
	@$(MAKE) --no-print-directory root-test PACKAGE=./tests/e2e TESTFLAGS="-test.v -test.run=TestALoneSurvivor -long"

.PHONY: test-fast
test-fast: build install-test-tools ## vet, layering and unit tests: no root, no nodes
	go vet ./...
	CGO_ENABLED=1 go test -race $$(go list ./... | grep -v -x -F "$$(printf '%s\n' $(ROOT_PACKAGES:./%=understudy/%) $(SEARCHES:./%=understudy/%))")
	go test $(SEARCHES)
	@[ -n "$$UNDERSTUDY_DO_OPENAPI" ] || go test -v ./tests/contract | grep 'did not run' # go test hides it in a package that passes

.PHONY: install-test-tools
install-test-tools: build
	@$(UNDERSTUDY) host-tools --install $(TEST_HOST)

.PHONY: tools
tools: check-root build ## make the tree with the programs that tests run beside ours
	@$(UNDERSTUDY) image tools --install --cache $(CACHE) $(TOOLS) > $(BUILD)/tools-tree

# One package's tests, as root, from the package's own directory, as go test would. Those that run side by side wait most of the time.
.PHONY: root-test
root-test:
	@go test -c $(COMPILE) -o $(BUILD)/root.test $(PACKAGE)
	@cd $(PACKAGE) && $(SUDO) env PATH="$$PATH" UNDERSTUDY_BUILD=$(CURDIR)/$(BUILD) UNDERSTUDY_CACHE=$(CACHE) UNDERSTUDY_TOOLS_TREE=$$(cat $(CURDIR)/$(BUILD)/tools-tree) \
	  $(CURDIR)/$(BUILD)/root.test -test.timeout=20m -test.parallel=4 $(TESTFLAGS) && echo "ok  	$(PACKAGE)"

DAYS ?= 100000

.PHONY: sim-long
sim-long: build ## play DAYS days of the reference cluster's life, and switch every safety rule off in turn
	$(BUILD)/understudy simulate --days $(DAYS) roles.yaml
	$(BUILD)/understudy simulate --rails

BENCH_RUNS ?= 5
BENCH      ?= .

# Both sides alternate: each run measures every side once, and the table takes medians over the runs.
.PHONY: bench
bench: check-root build tools ## run the benchmarks and print the table: what, ours, theirs, target, met
	@go test -c -o $(BUILD)/bench.test ./tests/bench
	@go test -c -o $(BUILD)/journal.test ./sidecar/mailjournal
	@rm -f $(BUILD)/bench.txt
	@set -e; for i in $$(seq $(BENCH_RUNS)); do { (cd tests/bench && $(SUDO) env PATH="$$PATH" UNDERSTUDY_BUILD=$(CURDIR)/$(BUILD) UNDERSTUDY_CACHE=$(CACHE) UNDERSTUDY_TOOLS_TREE=$$(cat $(CURDIR)/$(BUILD)/tools-tree) \
	  $(CURDIR)/$(BUILD)/bench.test -test.run='^$$' -test.bench='$(BENCH)' -test.benchtime=1x -test.timeout=60m) && \
	  (cd sidecar/mailjournal && TMPDIR=/var/tmp $(CURDIR)/$(BUILD)/journal.test -test.run='^$$' -test.bench='$(BENCH)' -test.benchtime=2000x); } > $(BUILD)/bench.part || { cat $(BUILD)/bench.part; exit 1; }; cat $(BUILD)/bench.part | tee -a $(BUILD)/bench.txt; done
	@echo; go run ./tests/bench/table < $(BUILD)/bench.txt

.PHONY: lint
lint: check-go ## gofmt, staticcheck and a tidy go.mod
	@test -z "$$(gofmt -l .)" || { echo "make: not gofmt'ed:"; gofmt -l .; exit 1; } >&2
	go tool staticcheck ./...
	go mod tidy -diff

.PHONY: fmt
fmt: check-go ## format the Go code
	gofmt -w .

.PHONY: clean
clean: check-root build ## remove built images and binaries
	$(UNDERSTUDY) image clean --cache $(CACHE)
	rm -rf $(BUILD)

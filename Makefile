# Building needs Go alone. What a target needs beyond that it installs itself, on Debian and Ubuntu with apt-get; elsewhere it says
# what is missing.

GO     ?= go
PREFIX ?= /usr/local
ARGS   ?=

# Root is needed to trace, not to build.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

TOOLS         := $(CURDIR)/.tools
GOLANGCI_LINT := v2.15.0
# The compiler that made the committed object. Another one makes another object.
CLANG         := clang-19
CLANG_VERSION := 19.1.7

# $(call need,COMMAND,PACKAGES): nothing happens where COMMAND is there.
define need
	@command -v $(1) >/dev/null || { \
		command -v apt-get >/dev/null || { echo "make: $(1) is missing; Debian has it in: $(2)" >&2; exit 1; }; \
		echo "Installing $(2)"; \
		$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(2) >/dev/null; }
endef

.PHONY: build run test bench lint generate verify install clean help

build: ## build ./sstrace, a static binary
	CGO_ENABLED=0 $(GO) build -trimpath -o sstrace ./cmd/sstrace

run: build ## build and trace until Ctrl-C, as root; make run ARGS='-p 6379'
	@$(SUDO) ./sstrace $(ARGS)

test: ## run all tests, those that trace as root
	$(call need,redis-cli,redis-tools)
	$(call need,findmnt,util-linux)
	$(call need,ss,iproute2)
	$(call need,tmux,tmux)
	$(GO) test -count=1 -timeout 30m $(if $(SUDO),-exec '$(SUDO) -E') ./...

bench: ## measure each room, and, as root, the whole beside tcpstates of libbpf-tools, and ls beside ss
	$(call need,tcpstates,libbpf-tools)
	$(call need,bpftool,bpftool)
	$(GO) test -run '^$$' -bench . -benchmem ./internal/...
	$(GO) test -run '^$$' -bench Beside -benchtime 200000x $(if $(SUDO),-exec '$(SUDO) -E') ./cmd/sstrace
	$(GO) test -run '^$$' -bench Listing -benchtime 20x $(if $(SUDO),-exec '$(SUDO) -E') ./cmd/sstrace

lint: $(TOOLS)/golangci-lint-$(GOLANGCI_LINT) ## gofmt, go vet, golangci-lint, clang-format, mandoc
	$(call need,clang-format-19,clang-format-19)
	$(call need,mandoc,mandoc)
	@test -z "$$(gofmt -l cmd internal)" || { gofmt -d cmd internal; exit 1; }
	$(GO) vet ./...
	GOOS=darwin $(GO) vet $$($(GO) list ./... | grep -v /probe)
	GOARCH=arm64 $(GO) vet ./...
	$< run ./...
	clang-format-19 --dry-run -Werror vmlinux.h bpf/*.[ch]
	mandoc -Tlint -Wwarning docs/sstrace.8

$(TOOLS)/golangci-lint-$(GOLANGCI_LINT):
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)
	mv $(TOOLS)/golangci-lint $@

generate: ## write what the table of keys implies, and compile bpf/ again, with clang-19
	$(GO) generate ./internal/event
	$(call need,$(CLANG),$(CLANG))
	$(call need,llvm-strip-19,llvm-19)
	@test -e /usr/include/bpf/bpf_helpers.h || { $(SUDO) apt-get update -qq && \
		$(SUDO) apt-get install -y -qq --no-install-recommends libbpf-dev >/dev/null; }
	@$(CLANG) --version | grep -q ' $(CLANG_VERSION) ' || echo "make: this is not $(CLANG) $(CLANG_VERSION): the object will differ" >&2
	$(GO) generate ./internal/probe

# What make generate writes.
GENERATED := internal/record/enums.go internal/event/keys_gen.go internal/filter/keys_gen.go docs/ndjson.schema.json docs/ndjson.md \
	$(foreach name,bpf list,internal/probe/$(name)_bpfel.go internal/probe/$(name)_bpfel.o)

verify: ## generate again and compare with what is committed
	@old=$$(mktemp -d) && trap 'rm -r "$$old"' EXIT && cp --parents $(GENERATED) "$$old" && \
	$(MAKE) --no-print-directory generate && \
	for f in $(GENERATED); do cmp "$$old/$$f" "$$f" || \
		{ echo "make: $$f was stale; it is up to date now: commit it" >&2; exit 1; }; done

install: ## install what `make build` built, its man page and shell completions, below PREFIX (/usr/local)
	@test -x sstrace || { echo "make: build it first, without sudo: make build" >&2; exit 1; }
	install -D -m 755 sstrace $(DESTDIR)$(PREFIX)/bin/sstrace
	install -D -m 644 docs/sstrace.8 $(DESTDIR)$(PREFIX)/share/man/man8/sstrace.8
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	./sstrace completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/sstrace
	./sstrace completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_sstrace
	./sstrace completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/sstrace.fish

clean: ## remove what was built, and the tools
	rm -rf sstrace $(TOOLS)

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

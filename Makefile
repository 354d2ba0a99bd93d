# Building needs nothing but Go. A target that needs more says what it installs and why: with apt-get
# on Debian and Ubuntu; elsewhere it only says what is missing.

GO     ?= go
PREFIX ?= /usr/local
ARGS   ?=

# For bug reports: sstrace --version prints it.
BUILD := $(shell git describe --tags --always --dirty 2>/dev/null || echo no git)

# Root is needed to trace, not to build.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

TOOLS         := $(CURDIR)/.tools
GOLANGCI_LINT := v2.15.0
# The compiler of the committed objects. Another one makes other objects.
CLANG         := clang-19
CLANG_VERSION := 19.1.7

# $(call need,COMMAND,PACKAGE,PURPOSE) installs PACKAGE unless COMMAND exists.
define need
	@command -v $(1) >/dev/null || { \
		command -v apt-get >/dev/null || { echo "make: $(1) is missing, needed $(3); the Debian package is $(2)" >&2; exit 1; }; \
		echo "Installing $(2), needed $(3)"; \
		$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(2) >/dev/null; }
endef

# go test as root.
ROOT_TEST := $(GO) test $(if $(SUDO),-exec '$(SUDO) -E')

.PHONY: build run test bench bench-once lint generate verify install clean help

##@ Use

build: ## build ./sstrace, a static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-X 'main.build=$(BUILD)'" -o sstrace ./cmd/sstrace

run: build ## build and trace until Ctrl-C, as root; make run ARGS='-p 6379'
	@$(SUDO) ./sstrace $(ARGS)

##@ Check

test: ## run all tests, as root those that trace
	$(call need,redis-cli,redis-tools,to test the tutorial with a real program)
	$(call need,findmnt,util-linux,to find where tracefs is mounted)
	$(call need,ss,iproute2,to compare the listing with ss)
	$(call need,tmux,tmux,to look at ls --watch on a terminal)
	$(ROOT_TEST) -count=1 -timeout 30m ./...

lint: $(TOOLS)/golangci-lint-$(GOLANGCI_LINT) ## check format, style, spelling, and the man page
	$(call need,clang-format-19,clang-format-19,to check the format of C)
	$(call need,mandoc,mandoc,to check the man page)
	$(call need,codespell,codespell,to check the spelling)
	@test -z "$$(gofmt -l cmd internal)" || { gofmt -d cmd internal; exit 1; }
	$(GO) vet ./...
	GOOS=darwin $(GO) vet ./...
	GOARCH=arm64 $(GO) vet ./...
	$< run ./...
	clang-format-19 --dry-run -Werror vmlinux.h bpf/*.[ch]
	mandoc -Tlint -Wwarning docs/sstrace.8
	codespell

verify: ## generate again, and compare with what is committed
	@old=$$(mktemp -d) && trap 'rm -r "$$old"' EXIT && cp --parents $(GENERATED) "$$old" && \
	$(MAKE) --no-print-directory generate && \
	for f in $(GENERATED); do cmp "$$old/$$f" "$$f" || \
		{ echo "make: $$f was stale; it is up to date now: commit it" >&2; exit 1; }; done

bench: ## measure each package and, as root, sstrace beside tcpstates, and ls beside ss
	$(call need,tcpstates,libbpf-tools,to compare with tcpstates)
	$(call need,bpftool,bpftool,to measure BPF programs)
	$(GO) test -run '^$$' -bench . -benchmem ./internal/...
	$(ROOT_TEST) -run '^$$' -bench Beside -benchtime 200000x ./cmd/sstrace
	$(ROOT_TEST) -run '^$$' -bench Listing -benchtime 20x ./cmd/sstrace

bench-once: ## run each benchmark once, so that none rots
	$(call need,tcpstates,libbpf-tools,to compare with tcpstates)
	$(call need,bpftool,bpftool,to measure BPF programs)
	$(ROOT_TEST) -run '^$$' -bench . -benchtime 1x ./...

$(TOOLS)/golangci-lint-$(GOLANGCI_LINT):
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)
	mv $(TOOLS)/golangci-lint $@

##@ Develop

# What generate writes.
GENERATED := internal/record/enums.go internal/event/keys_gen.go internal/filter/keys_gen.go docs/ndjson.schema.json docs/ndjson.md \
	$(foreach name,probe/bpf listing/list,internal/$(name)_bpfel.go internal/$(name)_bpfel.o)

generate: ## compile bpf/, and write what the table of keys implies
	$(GO) generate ./internal/event
	$(call need,$(CLANG),$(CLANG),to compile bpf/)
	$(call need,llvm-strip-19,llvm-19,to compile bpf/)
	@test -e /usr/include/bpf/bpf_helpers.h || { echo "Installing libbpf-dev, needed to compile bpf/" && \
		$(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends libbpf-dev >/dev/null; }
	@$(CLANG) --version | grep -q ' $(CLANG_VERSION) ' || echo "make: this is not $(CLANG) $(CLANG_VERSION): the object will differ" >&2
	$(GO) generate ./internal/probe ./internal/listing

##@ Install

install: ## install the build, its man page and shell completions below PREFIX (/usr/local)
	@test -x sstrace || { echo "make: nothing is built yet; run make build first, without sudo" >&2; exit 1; }
	install -D -m 755 sstrace $(DESTDIR)$(PREFIX)/bin/sstrace
	install -D -m 644 docs/sstrace.8 $(DESTDIR)$(PREFIX)/share/man/man8/sstrace.8
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	./sstrace completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/sstrace
	./sstrace completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_sstrace
	./sstrace completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/sstrace.fish

clean: ## remove the build and the tools
	rm -rf sstrace $(TOOLS)

help: ## list the targets
	@sed -n -e 's/^##@ /\n/p' -e 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 14

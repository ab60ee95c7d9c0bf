# One command for each thing a developer does. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo test tools check format policy card steering bench fuzz pictures recorded clean

RUN := .venv/bin/
DEMOS ?= 100

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

setup:  ## install uv, the GL library and the locked packages where they are missing
	@sh scripts/setup.sh

demo: setup  ## record steered and baseline rollouts, analyse them, say how to look at them
	$(RUN)vla-trace doctor
	$(RUN)vla-trace record --steer fast --alpha 8
	$(RUN)vla-trace analyze traces/*.h5
	@echo
	@echo "Look at them:  .venv/bin/vla-tui"

test: setup tools check  ## lint, import rules and all tests
	$(RUN)pytest -n 2 --dist loadscope

tools:  ## install the browser and the ssh server that tests need, where there are none
	@sh scripts/apt.sh

check:  ## lint, format and import rules, without the tests
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)lint-imports

format:  ## mend what can be mended
	$(RUN)ruff check --fix .
	$(RUN)ruff format .

policy: setup  ## rebuild the embedded policy's weights from nothing (DEMOS=4000 for a variant)
	$(RUN)python -P -m engine.policies.clone --demos $(DEMOS) $(if $(filter-out 100,$(DEMOS)),--build build/policy-$(DEMOS) --out build/policy-$(DEMOS)/smolvla_tabletop)

card: setup  ## measure the embedded policy again and rewrite docs/policy.md
	$(RUN)python -P scripts/policy_card.py

steering: setup  ## measure again what steering does to it and rewrite docs/steering.md
	sh scripts/steering.sh

bench: setup  ## print the tables of tests/benchmarks
	@for f in tests/benchmarks/*.py; do $(RUN)python -P $$f || exit 1; done

fuzz: setup  ## 5,000 damaged traces through every reader; the property tests, ten times as long
	$(RUN)python tests/fuzz
	$(RUN)pytest tests/traces tests/analysis --hypothesis-profile=long

pictures: setup  ## record anew, film vla-tui over it, redraw its pictures (RUNS=FOLDER: of runs that are there)
	$(RUN)python scripts/pictures.py $(RUNS)

recorded: setup  ## record the run that the golden screens are drawn from
	$(RUN)python -P scripts/recorded.py

clean:  ## remove what was built here; recordings and runs stay
	rm -rf build dist .venv .tools .pytest_cache .ruff_cache .import_linter_cache

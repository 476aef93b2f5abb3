"""Blocks, their references, and the prefix cache over them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.worker.engines.transformers.scheduling.block_hash import (
    BlockHashes,
    chained_hash,
    root_hash,
)
from services.worker.engines.transformers.scheduling.block_pool import BlockPool, OutOfBlocksError
from tests.sequences import choices, sequence


def chain(*names: str) -> list[bytes]:
    """Hashes of a prefix, one for each of its blocks."""
    return [name.encode() for name in itertools.accumulate(names)]


def cached(pool: BlockPool, *names: str) -> list[int]:
    """Computes a prefix as a sequence would, and leaves it to the cache."""
    hashes = chain(*names)
    table = pool.match(hashes)
    pool.share(table)
    table += pool.allocate(len(hashes) - len(table))
    for block, content_hash in zip(table, hashes, strict=True):
        pool.seal(block, content_hash)
    pool.release(table)
    return table


class TestBlockPool:
    def test_blocks_are_used_until_they_are_released(self) -> None:
        pool = BlockPool(3, 4)
        table = pool.allocate(2)
        assert table == [0, 1]
        assert (pool.used_blocks, pool.cached_blocks, pool.free_blocks) == (2, 0, 1)
        pool.release(table)
        assert (pool.used_blocks, pool.cached_blocks, pool.free_blocks) == (0, 0, 3)

    def test_nothing_is_handed_out_where_it_is_not_enough(self) -> None:
        pool = BlockPool(3, 4)
        pool.allocate(2)
        with pytest.raises(OutOfBlocksError, match="2 blocks wanted, 1 available"):
            pool.allocate(2)
        assert pool.free_blocks == 1

    def test_a_shared_block_stays_until_the_last_reference_goes(self) -> None:
        pool = BlockPool(1, 4)
        (block,) = pool.allocate(1)
        pool.share([block])
        pool.release([block])
        assert pool.used_blocks == 1
        pool.release([block])
        assert pool.used_blocks == 0

    def test_the_longest_known_prefix_is_found(self) -> None:
        pool = BlockPool(8, 4)
        table = cached(pool, "a", "b", "c")
        assert pool.match(chain("a", "b", "c", "d")) == table
        assert pool.match(chain("a", "b", "x", "c")) == table[:2]
        assert pool.match(chain("b")) == []

    def test_a_cached_block_can_be_used_again(self) -> None:
        pool = BlockPool(2, 4)
        table = cached(pool, "a", "b")
        assert (pool.used_blocks, pool.cached_blocks, pool.free_blocks) == (0, 2, 0)
        pool.share(table)
        assert (pool.used_blocks, pool.cached_blocks, pool.free_blocks) == (2, 0, 0)
        with pytest.raises(OutOfBlocksError):
            pool.allocate(1)

    def test_free_blocks_go_before_cached_ones_and_those_least_recently_used_first(self) -> None:
        pool = BlockPool(4, 4)
        cached(pool, "a")
        cached(pool, "b")
        cached(pool, "a")
        pool.allocate(2)
        assert pool.cached_blocks == 2
        pool.allocate(1)
        assert pool.match(chain("b")) == []
        assert len(pool.match(chain("a"))) == 1

    def test_a_prefix_loses_its_end_first(self) -> None:
        pool = BlockPool(3, 4)
        table = cached(pool, "a", "b", "c")
        for left in (2, 1, 0):
            pool.allocate(1)
            assert pool.match(chain("a", "b", "c")) == table[:left]

    def test_the_first_of_two_equal_blocks_is_kept(self) -> None:
        pool = BlockPool(2, 4)
        first, second = pool.allocate(2)
        for block in (first, second):
            pool.seal(block, b"same")
        pool.release([first, second])
        assert pool.match([b"same"]) == [first]
        assert (pool.cached_blocks, pool.free_blocks) == (1, 1)

    def test_a_forgotten_block_is_not_found_and_keeps_its_references(self) -> None:
        pool = BlockPool(2, 4)
        (block,) = pool.allocate(1)
        pool.seal(block, b"spoiled")
        pool.forget([block, block])
        assert pool.match([b"spoiled"]) == []
        assert pool.used_blocks == 1
        pool.release([block])
        assert pool.free_blocks == 2

    def test_a_forgotten_block_that_nobody_uses_is_free(self) -> None:
        pool = BlockPool(1, 4)
        pool.forget(cached(pool, "a"))
        assert (pool.cached_blocks, pool.free_blocks) == (0, 1)


class PoolMachine(RuleBasedStateMachine):
    """Sequences that come, grow and go in any order, over a pool that is far too small."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(6, 4)
        self.tables: list[tuple[list[int], list[bytes]]] = []
        self.contents: dict[int, bytes] = {}

    @rule(names=st.lists(st.sampled_from("ab"), min_size=1, max_size=4))
    def come(self, names: list[str]) -> None:
        hashes = chain(*names)
        table = self.pool.match(hashes)
        # What is found was written under this hash, and not overwritten since.
        assert [self.contents[block] for block in table] == hashes[: len(table)]
        self.pool.share(table)
        try:
            added = self.pool.allocate(len(hashes) - len(table))
        except OutOfBlocksError:
            self.pool.release(table)
            return
        in_use = {block for other, _ in self.tables for block in other}
        assert not in_use & set(added)
        for block, content in zip(added, hashes[len(table) :], strict=True):
            self.contents[block] = content
        self.tables.append((table + added, hashes))

    @precondition(lambda self: self.tables)
    @rule(which=st.integers(0, 99), upto=st.integers(1, 4))
    def seal(self, which: int, upto: int) -> None:
        table, hashes = self.tables[which % len(self.tables)]
        for block, content in zip(table[:upto], hashes[:upto], strict=True):
            self.pool.seal(block, content)

    @precondition(lambda self: self.tables)
    @rule(which=st.integers(0, 99))
    def go(self, which: int) -> None:
        self.pool.release(self.tables.pop(which % len(self.tables))[0])

    @precondition(lambda self: self.tables)
    @rule(which=st.integers(0, 99))
    def fail(self, which: int) -> None:
        table, _ = self.tables.pop(which % len(self.tables))
        self.pool.forget(table)
        self.pool.release(table)
        assert not any(self.pool.match([self.contents[each]]) == [each] for each in table)

    @invariant()
    def references_are_those_of_the_tables(self) -> None:
        held = [block for table, _ in self.tables for block in table]
        for block in range(self.pool.blocks):
            assert self.pool.references(block) == held.count(block)

    @invariant()
    def every_block_is_used_cached_or_free(self) -> None:
        pool = self.pool
        used = {block for table, _ in self.tables for block in table}
        assert pool.used_blocks == len(used)
        assert pool.used_blocks + pool.cached_blocks + pool.free_blocks == pool.blocks


TestPoolMachine = PoolMachine.TestCase


class TestBlockHashes:
    @given(st.lists(st.integers(0, 3), max_size=24), st.lists(st.integers(0, 3), max_size=24))
    def test_blocks_have_one_hash_where_all_up_to_their_end_is_equal(
        self, one: list[int], other: list[int]
    ) -> None:
        hashes = BlockHashes(b"root", 4)
        first, second = sequence("one", one), sequence("other", other)
        for index in range(min(len(one), len(other)) // 4):
            end = (index + 1) * 4
            is_equal = hashes.of(first, index) == hashes.of(second, index)
            assert is_equal == (one[:end] == other[:end])

    def test_prompt_and_output_make_one_chain(self) -> None:
        hashes = BlockHashes(b"root", 4)
        spoken, repeated = sequence("spoken", range(6)), sequence("repeated", range(13))
        for token_id in range(6, 13):
            spoken.output.take(token_id)
        # In any order: each is computed when it is asked for.
        assert hashes.of(spoken, 2) == hashes.of(repeated, 2)
        assert hashes.of(spoken, 0) == hashes.of(repeated, 0)
        assert hashes.of(spoken, 1) == hashes.of(repeated, 1)

    def test_choices_share_the_work_on_their_prompt(self) -> None:
        hashes = BlockHashes(b"root", 4)
        first, second = choices("a", 9, count=2)
        hashes.of(first, 1)
        assert len(second.request.prompt_hashes) == 2
        assert hashes.of(first, 1) == hashes.of(second, 1)

    def test_nothing_is_shared_across_weights_or_adapters(self) -> None:
        one, other = BlockHashes(b"one", 4), BlockHashes(b"other", 4)
        plain, adapted = sequence("a", range(4)), sequence("b", range(4), adapter="lora")
        again = sequence("c", range(4))
        found = {one.of(plain, 0), one.of(adapted, 0), other.of(again, 0)}
        assert len(found) == 3

    def test_parts_of_a_root_do_not_run_together(self) -> None:
        assert root_hash("ab", "c") != root_hash("a", "bc")
        assert root_hash("a") != root_hash("a", "")

    def test_token_ids_beyond_32_bits_are_told_apart(self) -> None:
        assert chained_hash(b"", [1]) != chained_hash(b"", [1 + 2**32])
        assert chained_hash(b"", [1, 0]) != chained_hash(b"", [1])

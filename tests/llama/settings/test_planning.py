"""Which layers go to which GPU, in figures that were worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gpus import device

from q3e_local.errors import OptionError
from q3e_local.gguf.model_file import ModelInfo, inspect
from q3e_local.llama.settings.memory import (
    ContextPlan,
    batch_plans,
    for_batches,
    for_long,
    given_up,
    long_plans,
    saving,
)
from q3e_local.llama.settings.placement import Placement
from q3e_local.llama.settings.planning import chosen, fewer, plan
from q3e_local.llama.settings.sharing import shared_out

LAYER, OUTPUT = 60_000_000, 319_000_000
# Sizes of Qwen3-Embedding-4B; the weights of a layer and of the projection are round numbers near Q4_K_M's.
MODEL = ModelInfo(
    path=Path("4b.gguf"), name="4B", size_bytes=36 * LAYER + OUTPUT, digest="", n_embd=2560, n_layer=36, n_head=32,
    n_head_kv=8, head_dim=128, n_ff=9728, n_ctx_train=32_768, n_vocab=151_669, eos_id=0, quantization="q4_k_m",
    added_tokens=(), layer_bytes=(LAYER,) * 36, output_bytes=OUTPUT,
)  # fmt: skip
IN_RAM = "keys and values in the machine's memory, where the CPU attends"
CONTEXT = for_batches(1024, 64, tap=True)
CELLS = 1024 * 147_456
# A row of logits for each of 64 texts; activations of 1,024 tokens; a mask of f16.
COMPUTE = 64 * 151_669 * 4 + 1024 * (3 * 9728 + 8 * 2560) * 4 + 1024 * 1024 * 2
ALL = 36 * LAYER + OUTPUT + CELLS + COMPUTE


def needed(n: int, n_devices: int = 1) -> int:
    return n * LAYER + OUTPUT + n * CELLS // 36 + n_devices * COMPUTE


def card(room: int, name: str = "CUDA0", total: float = 12.0) -> object:
    """A card of 8 GB and more with this much room beside the margin of a GiB."""
    return replace(device(name, total=total), free_bytes=room + (1 << 30))


# Where the layers go


def test_a_model_that_fits_goes_to_a_card_whole_and_says_so():
    placement = plan(MODEL, CONTEXT, [device(free=11.2, total=12.0)])
    assert (placement.n_on_gpu, placement.all_on_gpu, placement.is_short) == (36, True, False)
    assert placement.n_gpu_layers == 37  # the projection is llama.cpp's last layer
    assert placement.n_bytes == ALL
    assert placement.explained == "36 of 36 layers on NVIDIA GeForce RTX 3060, 2.9 of 12.0 GB"
    assert placement.place == "NVIDIA GeForce RTX 3060 (CUDA), all layers"


def test_the_last_byte_decides():
    assert plan(MODEL, CONTEXT, [card(ALL)]).n_on_gpu == 36
    assert plan(MODEL, CONTEXT, [card(ALL - 1)]).n_on_gpu == 35


@pytest.mark.parametrize("n", [1, 10, 35])
def test_as_many_layers_as_fit_go_to_a_card_that_is_too_small(n):
    placement = plan(MODEL, CONTEXT, [card(needed(n))])
    assert (placement.n_on_gpu, placement.n_gpu_layers, placement.all_on_gpu) == (n, n + 1, False)
    assert placement.is_short
    assert f"{n} of 36 layers on NVIDIA GeForce RTX 3060, " in placement.explained
    assert "2.9 GB are needed for all, " in placement.explained
    assert placement.place == f"NVIDIA GeForce RTX 3060 (CUDA), {n} of 36 layers"


def test_a_card_without_room_for_a_layer_leaves_all_to_the_cpu():
    placement = plan(MODEL, CONTEXT, [card(needed(1) - 1)])
    assert (placement.n_on_gpu, placement.n_gpu_layers, placement.devices) == (0, 0, ())
    assert placement.is_short
    assert placement.place == "CPU"
    assert placement.explained.startswith("all 36 layers on the CPU (2.9 GB are needed for all, ")


def test_of_a_small_card_an_eighth_is_left_to_others():
    assert device(free=4.0, total=4.0).room_bytes == 3_500_000_000
    assert device(free=0.3, total=4.0).room_bytes == 0
    assert device(free=8.0, total=16.0).room_bytes == 8_000_000_000 - (1 << 30)


def test_one_card_is_enough_and_it_is_the_one_with_most_memory_free():
    here = [device("CUDA0", free=5, total=24), device("CUDA1", free=7, total=8)]
    assert [each.name for each in plan(MODEL, CONTEXT, here).devices] == ["CUDA1"]


def test_two_cards_hold_what_one_cannot_each_with_buffers_of_its_own():
    half = (ALL + COMPUTE) // 2
    here = [card(half + 1, "CUDA0"), card(half, "CUDA1"), card(half - 1, "CUDA2")]
    placement = plan(MODEL, CONTEXT, here)
    assert [each.name for each in placement.devices] == ["CUDA0", "CUDA1"]
    assert (placement.n_on_gpu, placement.n_bytes) == (36, ALL + COMPUTE)
    assert "36 of 36 layers on NVIDIA GeForce RTX 3060 and NVIDIA GeForce RTX 3060, " in placement.explained
    third = [card(half // 2, "CUDA0"), card(half // 2, "CUDA1")]
    assert 0 < plan(MODEL, CONTEXT, third).n_on_gpu < 36


def test_a_small_card_beside_a_large_one_is_not_given_more_than_it_has():
    # Together they have room for all. By free memory the small one gets 3 layers, the projection and its buffers.
    large, small = card(ALL - 2 * LAYER, "CUDA0"), device("CUDA1", free=0.5, total=0.5)
    assert needed(36, 2) <= large.room_bytes + small.room_bytes
    assert small.free_bytes < 3 * LAYER + OUTPUT + COMPUTE
    placement = plan(MODEL, CONTEXT, [large, small])
    assert (placement.n_on_gpu, [each.name for each in placement.devices]) == (34, ["CUDA0"])
    assert placement.is_short


def test_a_device_that_does_not_tell_its_memory_gets_all_layers():
    placement = plan(MODEL, CONTEXT, [device(free=0, total=0)])
    assert placement.explained == "36 of 36 layers on NVIDIA GeForce RTX 3060"


@pytest.mark.parametrize(("wanted", "n"), [(0, 0), (7, 7), (36, 36), (99, 36)])
def test_layers_that_were_asked_for_go_there_whether_they_fit_or_not(wanted, n):
    placement = plan(MODEL, CONTEXT, [device(free=0.1, total=2)], wanted)
    assert (placement.n_on_gpu, placement.is_short) == (n, False)
    assert ("as asked" in placement.explained) == (n < 36)


def test_a_model_that_is_only_planned_has_layers_of_equal_size():
    placement = plan(replace(MODEL, layer_bytes=(), output_bytes=0), CONTEXT, [device()])
    assert placement.n_bytes == ALL


def test_bytes_of_layers_are_those_of_the_file(tiny_gguf):
    info = inspect(tiny_gguf("f32"))
    n_heads = 2 * info.n_head + 2 * info.n_head_kv  # of queries and outputs, and of keys and values
    in_layer = 4 * info.n_embd * (n_heads * info.head_dim + 3 * info.n_ff + 2) + 4 * 2 * info.head_dim
    assert info.layer_bytes == (in_layer,) * info.n_layer
    assert info.output_bytes == 4 * info.n_embd * (info.n_vocab + 1)  # the token table, and the norm


def test_each_card_has_the_layers_that_llama_cpp_gives_it_and_their_bytes():
    # Free memory of 3 to 1: of 37 layers, the projection among them, 28 begin before three quarters of the way.
    half = (ALL + COMPUTE) // 2
    here = [replace(card(half, "CUDA0"), free_bytes=3 * half), replace(card(half, "CUDA1"), free_bytes=half)]
    placement = plan(MODEL, CONTEXT, here[:1])
    assert (placement.split, placement.shares) == ((37,), (ALL,))
    tight = [replace(each, total_bytes=each.free_bytes) for each in here]
    placement = plan(replace(MODEL, layer_bytes=(2 * LAYER,) * 36), CONTEXT, tight)
    assert placement.split == (28, 9)
    cells = 28 * CELLS // 36
    assert placement.shares == (
        28 * 2 * LAYER + cells + COMPUTE,
        8 * 2 * LAYER + (CELLS - cells) + OUTPUT + COMPUTE,
    )
    fields = placement.fields()
    assert (fields["layers"], fields["on_gpu"]) == (36, 36)
    assert [(each["name"], each["driver"], each["layers"]) for each in fields["devices"]] == [
        ("CUDA0", "CUDA", 28), ("CUDA1", "CUDA", 8),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("free", "n", "expected"),
    [
        ([10], 5, [5]),
        ([30, 10], 4, [3, 1]),
        ([10, 30], 5, [2, 3]),  # 0, 1/5 begin before a quarter
        ([10, None], 4, [2, 2]),
        ([0, 0], 4, [2, 2]),
        ([10, 0], 4, [4, 0]),
    ],
)
def test_layers_are_shared_out_by_free_memory(free, n, expected):
    assert shared_out(free, n) == expected


# Which devices


def test_integrated_gpus_are_taken_only_where_there_is_no_other():
    small = device("Vulkan0", kind="integrated", backend="Vulkan")
    assert chosen([small, device("CUDA0")], None) == [device("CUDA0")]
    assert chosen([small], None) == [small]
    assert chosen([], None) == []


def test_a_card_that_two_backends_drive_counts_once():
    cards = [device(name, card=card) for name, card in (("CUDA0", "0000:01:00.0"), ("CUDA1", "0000:02:00.0"))]
    again = [replace(card, name=f"Vulkan{place}", backend="Vulkan") for place, card in enumerate(cards)]
    unknown = [device("Vulkan8"), device("Vulkan9")]
    assert chosen([*cards, *again, *unknown], None) == [*cards, *unknown]
    assert chosen([*cards, *again], ["Vulkan1"]) == [again[1]]


def test_devices_are_taken_by_name_in_the_order_given():
    here = [device("CUDA0"), device("CUDA1"), device("Vulkan0", kind="integrated")]
    assert [each.name for each in chosen(here, ["vulkan0", "CUDA1", "CUDA1"])] == ["Vulkan0", "CUDA1"]


def test_an_unknown_device_is_an_error_that_lists_those_there_are():
    with pytest.raises(
        OptionError, match=r"got 'CUDA7'; there is CUDA0: NVIDIA GeForce RTX 3060, CUDA, 11\.2 of 12\.0 GB"
    ):
        chosen([device()], ["CUDA0", "CUDA7"])
    with pytest.raises(OptionError, match="got 'CUDA0'; there is none: a driver may be missing"):
        chosen([], ["CUDA0"])


@pytest.mark.parametrize(
    ("kind", "backend", "unified"),
    [
        ("discrete", "CUDA", False),
        ("integrated", "Vulkan", True),
        ("discrete", "Metal", True),
        ("discrete", "MTL", True),
    ],
)
def test_memory_is_the_machines_on_integrated_gpus_and_on_every_mac(kind, backend, unified):
    of = device(kind=kind, backend=backend)
    assert of.is_unified == unified
    assert ("shared with the CPU" in str(of)) == unified
    assert Placement(2, 2, (of,)).is_unified == unified


# Where memory is refused


def test_half_the_layers_at_most_are_tried_next_and_none_in_the_end():
    placement = plan(MODEL, CONTEXT, [device()])
    counts = []
    while placement.on_gpu:
        placement = fewer(placement, MODEL, CONTEXT, placement.devices)
        counts.append(placement.n_on_gpu)
    assert counts == [18, 9, 4, 2, 1, 0]
    assert placement.explained == "all 36 layers on the CPU (for want of GPU memory)"


def test_of_half_the_layers_only_those_that_fit_now_are_tried():
    placement = plan(MODEL, CONTEXT, [device()])
    assert fewer(placement, MODEL, CONTEXT, [card(needed(5))]).n_on_gpu == 5


def test_the_order_in_which_a_long_text_does_without_memory_of_a_gpu():
    wanted = for_long(1024, 40_960, tap=True)
    plans = list(long_plans(wanted, 32_000, on_gpu=True))
    assert [(each.n_ctx, each.n_batch, each.kv_type, each.kv_on_gpu) for each in plans] == [
        (40_960, 1024, "f16", True),
        (32_000, 1024, "f16", True),
        (32_000, 512, "f16", True),
        (32_000, 127, "f16", True),
        (32_000, 127, "q8_0", True),
        (32_000, 127, "f16", False),
        (32_000, 127, "q8_0", False),
    ]
    assert [given_up(wanted, each) for each in plans] == [
        "",
        "",
        "pieces of 512 tokens",
        "pieces of 127 tokens",
        "pieces of 127 tokens, keys and values in q8_0",
        f"pieces of 127 tokens, {IN_RAM}",
        f"pieces of 127 tokens, keys and values in q8_0, {IN_RAM}",
    ]
    assert [each.n_batch for each in long_plans(wanted, 32_000, on_gpu=False)] == [1024, 1024, 512]


def test_the_order_in_which_batches_do_without_memory_of_a_gpu():
    def tried(**options: bool) -> list[tuple[int, str, bool]]:
        return [(each.n_batch, each.kv_type, each.kv_on_gpu) for each in batch_plans(CONTEXT, **options)]

    smaller = [(1024, "f16", True), (512, "f16", True), (256, "f16", True), (128, "f16", True)]
    frugal = [("q8_0", True), ("f16", False), ("q8_0", False)]
    assert tried(on_gpu=True, may_shrink=True) == [*smaller, *((128, *each) for each in frugal)]
    assert tried(on_gpu=True, may_shrink=False) == [smaller[0], *((1024, *each) for each in frugal)]
    assert tried(on_gpu=False, may_shrink=True) == [(1024, "f16", True)]


def test_what_is_given_in_q8_0_and_what_must_be_exact_only_go_to_the_machines_memory():
    given, exact = replace(CONTEXT, kv_type="q8_0"), replace(CONTEXT, exact=True)
    for context in (given, exact):
        assert list(saving(context)) == [replace(context, kv_on_gpu=False)]


def test_q8_0_takes_34_bytes_for_32_numbers():
    f16, q8_0 = (ContextPlan(4096, 512, 1, True, kv_type=kind).device_bytes(MODEL, 36) for kind in ("f16", "q8_0"))
    assert f16 - q8_0 == 4096 * 147_456 * 30 // 64


def test_a_context_is_partly_on_a_gpu_and_partly_in_the_machine():
    n_logits = 64 * 151_669 * 4
    assert CONTEXT.device_bytes(MODEL, 36) == CELLS + COMPUTE
    assert CONTEXT.host_bytes(MODEL, 36) == n_logits
    assert CONTEXT.device_bytes(MODEL, 9) == CELLS // 4 + COMPUTE
    assert CONTEXT.host_bytes(MODEL, 9) == CELLS * 3 // 4 + n_logits + COMPUTE
    assert CONTEXT.device_bytes(MODEL, 0) == 0
    assert CONTEXT.host_bytes(MODEL, 0) == CONTEXT.n_bytes(MODEL) == CELLS + n_logits + COMPUTE
    in_ram = replace(CONTEXT, kv_on_gpu=False)
    assert in_ram.device_bytes(MODEL, 36) == COMPUTE
    assert in_ram.host_bytes(MODEL, 36) == CONTEXT.n_bytes(MODEL)


def test_a_32k_text_of_the_4b_fits_8_gb_only_with_q8_0():
    """The figures that were measured by `no_alloc` on a software device: 7.3 GiB for f16, 5.2 GiB for q8_0."""
    long = for_long(1024, 32_768, tap=True)
    f16, q8_0 = (
        plan(MODEL, CONTEXT, [device()]).n_bytes + replace(long, kv_type=kind).device_bytes(MODEL, 36)
        for kind in ("f16", "q8_0")
    )
    assert 7.3 * 2**30 <= f16 <= 1.05 * 7.3 * 2**30
    assert 5.2 * 2**30 <= q8_0 <= 1.05 * 5.2 * 2**30

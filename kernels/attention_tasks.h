// Attention of many queries, cut into tasks for all threads: a block of queries of all heads that share a key head.
//
// Knows what the queries see, so that the longest tasks come first; not how a task is computed. That is in a class with
// MOST_ROWS, TILE_ROWS (see `cut`), WIDTH_UNIT (see `can_attend`), bytes(op) of scratch and compute(key_head, first,
// last), one object a thread.
#pragma once

#include "integers.h"
#include "visibility.h"

namespace q3e {
namespace {

constexpr int64_t MOST_WIDTH = 256;

inline int64_t group_of(const Attention& op) { return op.heads / op.key_heads; }

// Queries of all heads of a group that have at most `most` rows, a row being a query of one head; one query at least.
inline int64_t queries_in(const Attention& op, int64_t most) { return larger(most / group_of(op), 1); }

struct Tasks {
    int64_t queries;   // of a task; the last of a head may have fewer
    int64_t n_blocks;  // of queries
};

// At most `most` rows a task. A row tile has `rows` rows: no task but the last of a head fills a part of one only. Few
// queries are cut smaller, so that no thread is idle.
inline Tasks cut(const Attention& op, int threads, int64_t most, int64_t rows) {
    int64_t whole = 1;  // queries that fill row tiles
    while (whole * group_of(op) % rows != 0) ++whole;
    const int64_t limit = queries_in(op, most);
    const int64_t wanted = divide_up(3 * threads, op.key_heads);  // blocks, for 3 tasks a thread
    const int64_t n_blocks = larger(divide_up(op.queries, limit), wanted);
    const int64_t queries = smaller(round_up(divide_up(op.queries, n_blocks), whole), limit);
    return {queries, divide_up(op.queries, queries)};
}

// Bytes of the order of the blocks, and of the counts that it is found with, for however many blocks.
inline int64_t order_bytes(const Attention& op) { return op.queries * 16; }

// Write the numbers of the blocks to `order`, those with most to see first: a long task that comes last keeps the other
// threads waiting.
inline void order_blocks(const Attention& op, const Tasks& tasks, const Visibility& visibility, int64_t* order) {
    int64_t* n_seen = order + tasks.n_blocks;
    for (int64_t block = 0; block < tasks.n_blocks; ++block) {
        const int64_t first = block * tasks.queries;
        const int64_t last = smaller(first + tasks.queries, op.queries);
        n_seen[block] = 0;
        for (int64_t query = first; query < last; ++query) n_seen[block] += visibility.n_seen[query];
        int64_t place = block;
        for (; place > 0 && n_seen[order[place - 1]] < n_seen[block]; --place) order[place] = order[place - 1];
        order[place] = block;
    }
}

inline int64_t shared_bytes(const Attention& op) {
    return round_up(visibility_bytes(op) + order_bytes(op), 64);
}

template <class Task>
int64_t thread_bytes(const Attention& op) {
    return round_up(Task::bytes(op), 64);
}

// Whether a task can compute this: heads of whole units of numbers, and of whole blocks where these are quantized.
template <class Task>
bool can_attend(const Attention& op) {
    const bool known = op.type == Type::F32 || op.type == Type::F16 || op.type == Type::BF16 || op.type == Type::Q8_0;
    const int64_t unit = op.type == Type::Q8_0 ? larger(32, Task::WIDTH_UNIT) : Task::WIDTH_UNIT;
    return known && op.width >= unit && op.width <= MOST_WIDTH && op.width % unit == 0 && op.keys >= 1 &&
           op.key_heads >= 1 && op.heads % op.key_heads == 0;
}

template <class Task>
int64_t tasks_scratch(const Attention& op, int threads) {
    if (!can_attend<Task>(op)) return -1;
    return shared_bytes(op) + threads * thread_bytes<Task>(op);
}

template <class Task>
void compute_tasks(const Attention& op, const Team& team) {
    const Tasks tasks = cut(op, team.size, Task::MOST_ROWS, Task::TILE_ROWS);
    const Visibility visibility = visibility_at(op, team.scratch);
    auto* order = reinterpret_cast<int64_t*>(team.scratch + visibility_bytes(op));
    if (team.rank == 0) team.restart(team.pool, 0);
    read_visibility(op, visibility, team);
    team.wait(team.pool);
    if (team.rank == 0) order_blocks(op, tasks, visibility, order);
    team.wait(team.pool);

    Task task(op, visibility, team.scratch + shared_bytes(op) + team.rank * thread_bytes<Task>(op));
    const int64_t n_tasks = tasks.n_blocks * op.key_heads;
    for (int64_t next; (next = team.take(team.pool, 1)) < n_tasks;) {
        const int64_t first = order[next / op.key_heads] * tasks.queries;
        const int64_t last = smaller(first + tasks.queries, op.queries);
        task.compute(next % op.key_heads, first, last);
    }
}

}  // namespace
}  // namespace q3e

// Attention of many queries, cut into tasks for all threads: a block of queries of all heads that share a key head.
//
// Knows what the queries see, so that the longest tasks come first; not how a task is computed. That is in a class with
// MOST_ROWS, TILE_ROWS (see `cut`), bytes(op) of scratch and compute(key_head, first, last), one object a thread.
#pragma once

#include "visibility.h"

namespace q3e {
namespace {

struct Tasks {
    int64_t queries;   // of a task; the last of a head may have fewer
    int64_t n_blocks;  // of queries
};

// At most `most` rows a task, a row being a query of one head; one query is always taken. A row tile has `rows` rows:
// no task but the last of a head fills a part of one only. Few queries are cut smaller, so that no thread is idle.
inline Tasks cut(const Attention& op, int threads, int64_t most, int64_t rows) {
    const int64_t group = op.heads / op.key_heads;
    int64_t whole = 1;  // queries that fill row tiles
    while (whole * group % rows != 0) ++whole;
    const int64_t limit = most / group < 1 ? 1 : most / group;
    const int64_t wanted = (3 * threads + op.key_heads - 1) / op.key_heads;  // blocks, for 3 tasks a thread
    int64_t n_blocks = (op.queries + limit - 1) / limit;
    if (n_blocks < wanted) n_blocks = wanted;
    int64_t queries = (op.queries + n_blocks - 1) / n_blocks;
    queries = (queries + whole - 1) / whole * whole;
    if (queries > limit) queries = limit;
    return {queries, (op.queries + queries - 1) / queries};
}

// Bytes of the order of the blocks, and of the counts that it is found with, for however many blocks.
inline int64_t order_bytes(const Attention& op) { return op.queries * 16; }

// Write the numbers of the blocks to `order`, those with most to see first: a long task that comes last keeps the other
// threads waiting.
inline void order_blocks(const Attention& op, const Tasks& tasks, const Visibility& visibility, int64_t* order) {
    int64_t* n_seen = order + tasks.n_blocks;
    for (int64_t block = 0; block < tasks.n_blocks; ++block) {
        const int64_t first = block * tasks.queries;
        const int64_t last = first + tasks.queries < op.queries ? first + tasks.queries : op.queries;
        n_seen[block] = 0;
        for (int64_t query = first; query < last; ++query) n_seen[block] += visibility.n_seen[query];
        int64_t place = block;
        for (; place > 0 && n_seen[order[place - 1]] < n_seen[block]; --place) order[place] = order[place - 1];
        order[place] = block;
    }
}

inline int64_t shared_bytes(const Attention& op) {
    return (visibility_bytes(op) + order_bytes(op) + 63) / 64 * 64;
}

template <class Task>
int64_t thread_bytes(const Attention& op) {
    return (Task::bytes(op) + 63) / 64 * 64;
}

template <class Task>
int64_t tasks_scratch(const Attention& op, int threads) {
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
        const int64_t last = first + tasks.queries < op.queries ? first + tasks.queries : op.queries;
        task.compute(next % op.key_heads, first, last);
    }
}

}  // namespace
}  // namespace q3e

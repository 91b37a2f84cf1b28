// How the attention of many queries is cut into tasks: a block of queries of all heads that share a key head.
//
// Knows what the queries see, so that the longest tasks come first; not how a task is computed.
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

}  // namespace
}  // namespace q3e

// The workloads for boost.context; see boost.rs.

#include <boost/context/detail/fcontext.hpp>
#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>
#include <vector>

#ifdef __SSE__
#include <xmmintrin.h>
#endif

extern "C" std::int64_t peers_start();
extern "C" std::int64_t peers_elapsed(std::int64_t start);
extern "C" void *peers_take_stack(std::size_t *size);
extern "C" void peers_give_stack(void *top, std::size_t size);

namespace {

namespace ctx = boost::context;

// ---- stacks

struct slab {
    ctx::stack_context allocate() {
        ctx::stack_context stack;
        stack.sp = peers_take_stack(&stack.size);
        if (!stack.sp)
            throw std::bad_alloc();
        return stack;
    }

    void deallocate(ctx::stack_context &stack) { peers_give_stack(stack.sp, stack.size); }
};

// ---- the two interfaces, made alike
//
// `start` makes a context and enters it: `body` gets the context that was left and returns the
// one to go on with at its end. `resume` returns the context that was left by whoever came back.
// `suspended` owns a context that may never finish.

struct jump {
    using context = ctx::detail::fcontext_t;

    static context resume(context to) { return ctx::detail::jump_fcontext(to, nullptr).fctx; }

    template <class Stacks> struct suspended {
        Stacks stacks;
        ctx::stack_context stack;
        context at;

        template <class Body>
        suspended(Stacks stacks, Body body) : stacks(stacks), stack(this->stacks.allocate()) {
            at = ctx::detail::make_fcontext(stack.sp, stack.size, run<Body>);
            at = ctx::detail::jump_fcontext(at, &body).fctx;
        }

        suspended(suspended &&other)
            : stacks(other.stacks), stack(std::exchange(other.stack, {})), at(other.at) {}

        ~suspended() {
            if (stack.sp)
                stacks.deallocate(stack);
        }

        template <class Body> static void run(ctx::detail::transfer_t from) {
            Body body = std::move(*static_cast<Body *>(from.data));
            resume(body(from.fctx));
        }
    };
};

struct fiber {
    using context = ctx::fiber;

    static context resume(context &&to) { return std::move(to).resume(); }

    template <class Stacks> struct suspended {
        context at;

        template <class Body>
        suspended(Stacks stacks, Body body)
            : at(context(std::allocator_arg, stacks, std::move(body)).resume()) {}
    };
};

// ---- pieces of workloads, as in work.rs

template <class Op> std::int64_t time(std::uint64_t ops, Op op) {
    auto start = peers_start();
    for (std::uint64_t i = 0; i < ops; ++i)
        op();
    return peers_elapsed(start);
}

template <class Op> std::int64_t time_warm(std::uint64_t before, std::uint64_t ops, Op op) {
    std::int64_t elapsed = 0;
    for (std::uint64_t count : {before, ops})
        elapsed = time(count, [&] { op(); });
    return elapsed;
}

// Has all been done that was asked for?
void expect(bool is_so) {
    if (!is_so)
        std::abort();
}

void load_mxcsr(unsigned bits) {
#ifdef __SSE__
    _mm_setcsr(bits);
#else
    (void)bits;
#endif
}

template <class F> [[gnu::noinline]] void nest(std::size_t frames, F &f) {
    if (frames <= 1)
        f();
    else
        nest(frames - 1, f);
    asm volatile("");
}

struct owned {
    std::size_t value;
    ~owned() { asm volatile("" : : "r"(value)); }
};

template <class F> [[gnu::noinline]] void owning(std::size_t frames, F &f) {
    if (frames == 0)
        return f();
    owned guard{frames};
    owning(frames - 1, f);
}

template <class F> std::int64_t unless_out_of_memory(F f) noexcept {
    try {
        return f();
    } catch (const std::bad_alloc &) {
        return -1;
    }
}

// ---- workloads

template <class Api> std::int64_t flat(std::uint64_t ops, unsigned mxcsr) {
    std::uint64_t x = 0;
    typename Api::template suspended<slab> adder(slab(), [&](auto from) {
        for (;;) {
            x += 1;
            from = Api::resume(std::move(from));
        }
        return from;
    });
    load_mxcsr(mxcsr);
    auto elapsed = time(ops, [&] { adder.at = Api::resume(std::move(adder.at)); });
    load_mxcsr(0x1f80);
    expect(x == ops + 1);
    return elapsed;
}

template <class Api> std::int64_t message(std::uint64_t ops) {
    using message = std::array<std::uint64_t, 32>;
    message passed{};
    typename Api::template suspended<slab> adder(slab(), [&](auto from) {
        for (;;) {
            message received = passed;
            asm volatile("" : : "r"(&received) : "memory");
            received[0] += 1;
            passed = received;
            from = Api::resume(std::move(from));
        }
        return from;
    });
    message received{};
    auto elapsed = time(ops, [&] {
        passed = received;
        adder.at = Api::resume(std::move(adder.at));
        received = passed;
        asm volatile("" : : "r"(&received) : "memory");
    });
    expect(received[0] == ops);
    return elapsed;
}

template <class Api> auto deep_adder(std::size_t frames, std::uint64_t &x) {
    return typename Api::template suspended<slab>(slab(), [frames, &x](auto from) {
        for (;;) {
            x += 1;
            auto suspend = [&] { from = Api::resume(std::move(from)); };
            nest(frames, suspend);
        }
        return from;
    });
}

template <class Api> std::int64_t deep(std::size_t frames, std::uint64_t ops) {
    std::uint64_t x = 0;
    auto adder = deep_adder<Api>(frames, x);
    auto elapsed = time(ops, [&] { adder.at = Api::resume(std::move(adder.at)); });
    expect(x == ops + 1);
    return elapsed;
}

template <class Api> std::int64_t deep_on_both(std::size_t frames, std::uint64_t ops) {
    std::uint64_t x = 0;
    auto adder = deep_adder<Api>(frames, x);
    auto elapsed = time(ops, [&] {
        auto resume = [&] { adder.at = Api::resume(std::move(adder.at)); };
        nest(frames, resume);
    });
    expect(x == ops + 1);
    return elapsed;
}

template <class Api> std::int64_t ring(std::size_t size, std::uint64_t ops) {
    using suspended = typename Api::template suspended<slab>;
    std::vector<suspended> members;
    members.reserve(size);
    typename Api::context main{};
    // Where the context that is left belongs: whoever arrives puts it there.
    typename Api::context *left = nullptr;
    std::uint64_t hops = 0;
    for (std::size_t index = 0; index < size; ++index) {
        members.emplace_back(slab(), [&, index](auto from) {
            from = Api::resume(std::move(from));
            for (;;) {
                *left = std::move(from);
                left = &members[index].at;
                auto *next = &main;
                if (hops > 0) {
                    hops -= 1;
                    next = &members[index + 1 == size ? 0 : index + 1].at;
                }
                from = Api::resume(std::move(*next));
            }
            return from;
        });
    }
    auto go = [&] {
        left = &main;
        auto from = Api::resume(std::move(members[0].at));
        *left = std::move(from);
    };
    hops = 2 * size;
    go();
    auto elapsed = time(1, [&] {
        hops = ops;
        go();
    });
    expect(hops == 0);
    return elapsed;
}

template <class Api> auto populated(std::size_t count, std::size_t frames, std::uint64_t &x) {
    std::vector<typename Api::template suspended<slab>> adders;
    adders.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        if (frames > 0) {
            adders.push_back(deep_adder<Api>(frames, x));
            continue;
        }
        adders.emplace_back(slab(), [&x](auto from) {
            for (;;) {
                x += 1;
                from = Api::resume(std::move(from));
            }
            return from;
        });
    }
    return adders;
}

template <class Api>
std::int64_t round_robin(const std::size_t *order, std::size_t count, std::size_t frames,
                         std::uint64_t passes) {
    std::uint64_t x = 0;
    auto adders = populated<Api>(count, frames, x);
    auto elapsed = time_warm(1, passes, [&] {
        for (std::size_t i = 0; i < count; ++i) {
            auto &adder = adders[order[i]];
            adder.at = Api::resume(std::move(adder.at));
        }
    });
    expect(x == (2 + passes) * count);
    return elapsed;
}

template <class Api, class Stacks> std::int64_t lives(Stacks stacks, std::uint64_t ops) {
    std::uint64_t x = 0;
    auto elapsed = time(ops, [&] {
        typename Api::template suspended<Stacks> adder(stacks, [&](auto from) {
            x += 1;
            return from;
        });
    });
    expect(x == ops);
    return elapsed;
}

template <class Api> std::int64_t populate(std::size_t count) {
    static std::uint64_t x;
    // They are to be suspended when this returns.
    auto *adders = new std::vector<typename Api::template suspended<slab>>;
    return time(1, [&] { *adders = populated<Api>(count, 0, x); });
}

// ---- workloads that only `fiber` has

std::int64_t kill(std::size_t frames, std::uint64_t ops) {
    const std::uint64_t batch = 64;
    std::int64_t elapsed = 0;
    for (; ops > 0; ops -= std::min(ops, batch)) {
        std::vector<fiber::suspended<slab>> victims;
        for (std::uint64_t i = 0; i < std::min(ops, batch); ++i) {
            victims.emplace_back(slab(), [=](ctx::fiber from) {
                auto suspend = [&] { from = fiber::resume(std::move(from)); };
                owning(frames, suspend);
                return from;
            });
        }
        auto victim = victims.begin();
        elapsed += time(victims.size(), [&] { (victim++)->at = ctx::fiber(); });
    }
    return elapsed;
}

struct small_error {
    ctx::fiber from;
    std::uint64_t value;
};

std::int64_t throw_and_catch(std::uint64_t ops) {
    std::uint64_t x = 0;
    fiber::suspended<slab> catcher(slab(), [&](ctx::fiber from) {
        for (;;) {
            try {
                from = fiber::resume(std::move(from));
            } catch (small_error &error) {
                x = error.value + 1;
                from = std::move(error.from);
            }
        }
        return from;
    });
    auto elapsed = time(ops, [&] {
        catcher.at = std::move(catcher.at).resume_with([&](ctx::fiber &&from) -> ctx::fiber {
            throw small_error{std::move(from), x};
        });
    });
    expect(x == ops);
    return elapsed;
}

} // namespace

// ---- what boost.rs calls

#define WORKLOADS(api)                                                                             \
    std::int64_t api##_flat(std::uint64_t ops, std::uint32_t mxcsr) {                              \
        return unless_out_of_memory([=] { return flat<api>(ops, mxcsr); });                        \
    }                                                                                              \
    std::int64_t api##_message(std::uint64_t ops) {                                                \
        return unless_out_of_memory([=] { return message<api>(ops); });                            \
    }                                                                                              \
    std::int64_t api##_deep(std::size_t frames, std::uint64_t ops) {                               \
        return unless_out_of_memory([=] { return deep<api>(frames, ops); });                       \
    }                                                                                              \
    std::int64_t api##_deep_on_both(std::size_t frames, std::uint64_t ops) {                       \
        return unless_out_of_memory([=] { return deep_on_both<api>(frames, ops); });               \
    }                                                                                              \
    std::int64_t api##_ring(std::size_t size, std::uint64_t ops) {                                 \
        return unless_out_of_memory([=] { return ring<api>(size, ops); });                         \
    }                                                                                              \
    std::int64_t api##_round_robin(const std::size_t *order, std::size_t count,                    \
                                   std::size_t frames, std::uint64_t passes) {                     \
        return unless_out_of_memory(                                                               \
            [=] { return round_robin<api>(order, count, frames, passes); });                       \
    }                                                                                              \
    std::int64_t api##_pooled(std::uint64_t ops) {                                                 \
        return unless_out_of_memory([=] { return lives<api>(slab(), ops); });                      \
    }                                                                                              \
    std::int64_t api##_fresh(std::uint64_t ops, std::size_t stack_size) {                          \
        ctx::protected_fixedsize_stack stacks(stack_size);                                         \
        return unless_out_of_memory([=] { return lives<api>(stacks, ops); });                      \
    }                                                                                              \
    std::int64_t api##_populate(std::size_t count) {                                               \
        return unless_out_of_memory([=] { return populate<api>(count); });                         \
    }

extern "C" {

WORKLOADS(jump)
WORKLOADS(fiber)

std::int64_t fiber_kill(std::size_t frames, std::uint64_t ops) {
    return unless_out_of_memory([=] { return kill(frames, ops); });
}

std::int64_t fiber_throw(std::uint64_t ops) {
    return unless_out_of_memory([=] { return throw_and_catch(ops); });
}

} // extern "C"

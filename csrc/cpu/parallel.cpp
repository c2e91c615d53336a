#include "parallel.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <list>
#include <mutex>
#include <system_error>
#include <thread>

namespace rdn::cpu {

namespace {

// One call of parallel_for. Lives on its caller's stack; `members` and `joined` are guarded by the pool's mutex.
struct Job {
    int64_t count;
    int threads;
    Body body;
    const void* context;
    std::atomic<int64_t> next{0};
    int joined = 1;   // threads that ever took part; numbers the workers, 0 is the caller
    int members = 0;  // pool threads inside work() now
    std::exception_ptr error{};

    bool open() const { return joined < threads && next.load(std::memory_order_relaxed) < count; }
};

// As std::condition_variable::wait, whose symbol in libstdc++ (GLIBCXX_3.4.30, gcc 12) is newer than all others that
// this module needs: with it a wheel would not load on systems of gcc 11.
template <typename Ready>
void wait(std::condition_variable& changed, std::unique_lock<std::mutex>& lock, Ready ready) {
    while (!ready())
        pthread_cond_wait(changed.native_handle(), lock.mutex()->native_handle());
}

class Pool {
  public:
    void run(Job& job) {
        {
            std::lock_guard lock(mutex_);
            grow(job.threads - 1);
            jobs_.push_back(&job);
        }
        for (int helper = 1; helper < job.threads; ++helper)
            wake_.notify_one();
        work(job, 0);
        std::unique_lock lock(mutex_);
        jobs_.remove(&job);
        wait(left_, lock, [&] { return job.members == 0; });
        lock.unlock();
        if (job.error) std::rethrow_exception(job.error);
    }

  private:
    // A machine that refuses another thread is slower, not broken.
    void grow(int wanted) {
        try {
            for (; size_ < wanted; ++size_)
                std::thread([this] { serve(); }).detach();
        } catch (const std::system_error&) {
        }
    }

    void serve() {
        std::unique_lock lock(mutex_);
        for (;;) {
            Job* job = nullptr;
            wait(wake_, lock, [&] { return (job = open_job()) != nullptr; });
            const int worker = job->joined++;
            ++job->members;
            lock.unlock();
            work(*job, worker);
            lock.lock();
            if (--job->members == 0) left_.notify_all();
        }
    }

    // The job with the fewest helpers, so that several callers share the pool.
    Job* open_job() const {
        Job* best = nullptr;
        for (Job* job : jobs_)
            if (job->open() && (best == nullptr || job->members < best->members)) best = job;
        return best;
    }

    void work(Job& job, int worker) {
        try {
            for (int64_t index; (index = job.next.fetch_add(1)) < job.count;)
                job.body(job.context, index, worker);
        } catch (...) {
            job.next.store(job.count);
            std::lock_guard lock(mutex_);
            if (!job.error) job.error = std::current_exception();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, left_;
    std::list<Job*> jobs_;
    int size_ = 0;
};

// Never destroyed: its threads outlive static destructors, and a forked child cannot join threads it does not have.
Pool* pool = nullptr;

Pool& shared_pool() {
    static const bool made = [] {
        pool = new Pool;
        pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
        return true;
    }();
    static_cast<void>(made);
    return *pool;
}

}  // namespace

void parallel_for(int64_t count, int threads, Body body, const void* context) {
    if (threads > count) threads = static_cast<int>(count);
    if (threads <= 1) {
        for (int64_t index = 0; index < count; ++index)
            body(context, index, 0);
        return;
    }
    Job job{count, threads, body, context};
    shared_pool().run(job);
}

}  // namespace rdn::cpu

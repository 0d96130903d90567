// The event stream. fetch instead of EventSource: that one cannot carry a bearer token.

const FIRST_WAIT_MS = 500, LONGEST_WAIT_MS = 10_000;

export class Locked extends Error {}

export async function follow({ token, heard, state }) {
  let last = null, wait = FIRST_WAIT_MS;
  for (;;) {
    const silence = new AbortController();
    const clock = watchdog(silence);
    try {
      const headers = { Accept: "text/event-stream" };
      if (token()) headers.Authorization = `Bearer ${token()}`;
      if (last) headers["Last-Event-ID"] = last;
      const answer = await fetch("/api/v1/events", { headers, cache: "no-store", signal: silence.signal });
      if (answer.status === 401) throw new Locked();
      if (!answer.ok) throw new Error(`the server says ${answer.status}`);
      state("open");
      wait = FIRST_WAIT_MS;
      for await (const one of events(answer.body)) {
        clock.heard();
        if (one.id) last = one.id;
        heard(one.event, JSON.parse(one.data));
      }
      state("lost", "the server closed the connection");
    } catch (error) {
      if (error instanceof Locked) throw error;
      state("lost", error.name === "AbortError" ? "the server has gone silent" : error.message);
    } finally {
      clock.stop();
      silence.abort();
    }
    await new Promise((resolve) => setTimeout(resolve, wait * (0.75 + Math.random() / 2)));
    wait = Math.min(LONGEST_WAIT_MS, wait * 2);
  }
}

// The server is heard every ten seconds; after three times that the connection is as good as gone.
function watchdog(silence) {
  let timer = 0;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), 30_000);
  };
  heard();
  return { heard, stop: () => clearTimeout(timer) };
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const one = {};
        for (const line of part.split("\n")) {
          const at = line.indexOf(": ");
          if (at > 0) one[line.slice(0, at)] = line.slice(at + 2);
        }
        if (one.event) yield one;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

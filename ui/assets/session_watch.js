// Covers the page as soon as nobody who may see it is logged in any more. What is typed stays beneath, and is there again after a log-in.
// Who logs in as somebody else gets the page anew. See session_watch.py for the messages.
(() => {
  "use strict";
  const OPEN = "open", ENDED = "";
  let drawnFor = null;
  let isCovered = false;

  const style = document.createElement("style");
  style.textContent = `
    .rc-ended{display:none;position:fixed;inset:0;z-index:2000000;flex-direction:column;align-items:center;justify-content:center;
      gap:.75rem;padding:1rem;text-align:center;font-family:"Source Sans",sans-serif;background:Canvas;color:CanvasText}
    body[data-session=ended] .rc-ended,body:has(.rc-cover) .rc-ended{display:flex}
    body[data-session=ended] #root{visibility:hidden}`;
  const cover = document.createElement("div");
  cover.className = "rc-ended";
  cover.setAttribute("role", "alert");
  cover.innerHTML = "<h3>You are logged out</h3><p>What you were typing is kept. It is there again when you have logged in.</p>"
    + "<p><a target='_blank' rel='opener'>Log in</a></p>";
  const link = cover.querySelector("a");
  link.href = location.href;
  // The page itself leads to the log-in, and back to where it was.
  link.addEventListener("click", () => { link.href = location.href; });

  function show() {
    const page = document.querySelector("[data-testid=stApp]");
    const colours = page && getComputedStyle(page);
    if (colours && !/, 0\)$|transparent/.test(colours.backgroundColor)) {
      cover.style.background = colours.backgroundColor;
      cover.style.color = colours.color;
    }
    document.body.dataset.session = isCovered ? "ended" : "";
  }

  function connect() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/session-watch`);
    socket.onmessage = ({ data }) => {
      if (data !== ENDED && drawnFor !== null && data !== drawnFor && drawnFor !== OPEN) {
        location.reload();
        return;
      }
      if (data !== ENDED) drawnFor = data;
      isCovered = data === ENDED;
      show();
      // A socket keeps the cookie that it was opened with: the next one has that of a new log-in.
      if (isCovered) setTimeout(() => socket.close(), 500);
    };
    socket.onclose = () => setTimeout(connect, 500);
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.head.append(style);
    document.body.append(cover);
    connect();
  });
})();

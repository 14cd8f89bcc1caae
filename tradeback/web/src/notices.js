// Short sentences at the edge of the page, which go by themselves.

const SHOWN_MS = 6_000;
const MOST = 3;

export function notify(text) {
  const notices = document.getElementById("notices");
  const notice = document.createElement("p");
  notice.className = "notice";
  notice.textContent = text;
  while (notices.children.length >= MOST) notices.firstElementChild.remove();
  notices.append(notice);
  setTimeout(() => notice.remove(), SHOWN_MS);
}
